# Runs etcd and kube-apiserver until standard input ends, which it does when the test process is gone, however it went.
# Arguments: the programs, a directory of its own, an address of its own, and kube-controller-manager if it is to run too.
etcd=$1 apiserver=$2 directory=$3 address=$4 controllers=$5

tidy_up() {
	kill -KILL $running 2>/dev/null
	wait
	rm -rf "$directory"
}
trap tidy_up EXIT
trap exit INT TERM HUP

"$etcd" --data-dir "$directory/etcd" --unsafe-no-fsync \
	--listen-client-urls "http://$address:2379" --advertise-client-urls "http://$address:2379" \
	--listen-peer-urls "http://$address:2380" --initial-advertise-peer-urls "http://$address:2380" \
	--initial-cluster "default=http://$address:2380" \
	>"$directory/etcd.log" 2>&1 &
running=$!

# Everything as a cluster has it, admission plugins and RBAC included. The serving certificate is made by the API server.
"$apiserver" --etcd-servers "http://$address:2379" \
	--bind-address "$address" --advertise-address "$address" --secure-port 6443 --endpoint-reconciler-type none \
	--cert-dir "$directory/certificates" --token-auth-file "$directory/tokens.csv" --authorization-mode RBAC \
	--service-account-issuer https://kubernetes.default.svc \
	--service-account-signing-key-file "$directory/service-accounts.key" \
	--service-account-key-file "$directory/service-accounts.pub" \
	--service-cluster-ip-range 10.77.0.0/24 --allow-privileged \
	>"$directory/kube-apiserver.log" 2>&1 &
running="$running $!"

# It needs the certificate that the API server makes, and waits for the rest of it by itself.
if [ -n "$controllers" ]; then
	(
		until [ -s "$directory/certificates/apiserver.crt" ] && [ -s "$directory/admin.kubeconfig" ]; do sleep 0.1; done
		exec "$controllers" --kubeconfig "$directory/admin.kubeconfig" --bind-address "$address" --cert-dir "$directory/controllers" \
			--service-account-private-key-file "$directory/service-accounts.key" --leader-elect=false
	) >"$directory/controllers.log" 2>&1 &
	running="$running $!"
fi

read -r _
