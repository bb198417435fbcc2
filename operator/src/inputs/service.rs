//! What is read of Services: the ready endpoints behind a port, of no other Service than those that a Destination refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use super::Objects;

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Endpoints of a Service that are used, at most.
pub(crate) const ENDPOINTS_MAX: usize = 256;

/// Which Service. Displays as `Service default/graphite`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceName {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
}

impl ServiceName {
    /// The Service whose endpoints a slice holds.
    pub fn of_slice(slice: &EndpointSlice, namespace: &str) -> Option<Self> {
        Some(Self {
            namespace: namespace.to_owned(),
            name: slice.labels().get(SERVICE_LABEL)?.clone(),
        })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {}/{}", self.namespace, self.name)
    }
}

/// A Service with its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    // Number and name of each port; `None`: the Service itself is not there.
    ports: Option<Vec<(i32, String)>>,
    // By name, IPv4 before IPv6.
    slices: BTreeMap<(String, String), Slice>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    // Name and number.
    ports: Vec<(String, i32)>,
    // Those that are ready: what each is called, and its first address.
    endpoints: Vec<(String, String)>,
}

/// Why a Service has no servers that can be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoServers {
    /// Neither the Service nor a slice of it is there.
    #[error("does not exist, or must not be read: create it")]
    NotFound,
    /// The port is none of the Service's.
    #[error("has no port {port}: it has {}", .ports.join(", "))]
    NoPort {
        /// The one that is wanted.
        port: i32,
        /// Those that there are.
        ports: Vec<String>,
    },
}

impl Service {
    /// Takes what is needed of the Service itself.
    pub fn set_service(&mut self, service: Option<&v1::Service>) {
        self.ports = service.map(|service| {
            let ports = service.spec.iter().flat_map(|spec| spec.ports.iter());
            let ports = ports.flatten();
            ports
                .map(|port| (port.port, port.name.clone().unwrap_or_default()))
                .collect()
        });
    }

    /// Takes what is needed of one of its slices.
    pub fn put_slice(&mut self, slice: &EndpointSlice) {
        let ports = slice.ports.iter().flatten();
        let ports = ports
            .filter_map(|port| Some((port.name.clone().unwrap_or_default(), port.port?)))
            .collect();
        let ready = slice.endpoints.iter().filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            // Unknown is to be taken for ready.
            conditions.and_then(|conditions| conditions.ready) != Some(false)
        });
        let endpoints = ready.filter_map(|endpoint| {
            let address = endpoint.addresses.first()?.clone();
            let pod = endpoint.target_ref.as_ref();
            let name = pod.and_then(|pod| pod.name.clone());
            let name = name.or_else(|| endpoint.hostname.clone());
            Some((name.unwrap_or_else(|| address.clone()), address))
        });
        let slice_of = Slice {
            ports,
            endpoints: endpoints.collect(),
        };
        self.slices.insert(Self::slice_key(slice), slice_of);
    }

    /// Forgets a slice.
    pub fn remove_slice(&mut self, slice: &EndpointSlice) {
        self.slices.remove(&Self::slice_key(slice));
    }

    /// Forgets every slice.
    pub fn clear_slices(&mut self) {
        self.slices.clear();
    }

    fn slice_key(slice: &EndpointSlice) -> (String, String) {
        (slice.address_type.clone(), slice.name_any())
    }

    /// The servers behind a port: the name of each, sorted, and its `host:port`. An endpoint with addresses of both families
    /// is one server.
    pub(crate) fn servers(&self, port: i32) -> Result<BTreeMap<String, String>, NoServers> {
        if self.ports.is_none() && self.slices.is_empty() {
            return Err(NoServers::NotFound);
        }
        let name = self.port_name(port)?;
        let mut servers = BTreeMap::new();
        for slice in self.slices.values() {
            let mut ports = slice.ports.iter();
            let is_wanted = |(slice_name, number): &&(String, i32)| match name {
                Some(name) => slice_name == name,
                None => *number == port,
            };
            let Some((_, number)) = ports.find(is_wanted) else {
                continue;
            };
            for (name, address) in &slice.endpoints {
                let address = match address.contains(':') {
                    true => format!("[{address}]:{number}"),
                    false => format!("{address}:{number}"),
                };
                servers.entry(name.clone()).or_insert(address);
            }
        }
        Ok(servers)
    }

    // What slices call the Service's port; `None`: there is no Service, and their numbers count.
    fn port_name(&self, port: i32) -> Result<Option<&str>, NoServers> {
        let mut numbers = BTreeSet::new();
        match &self.ports {
            Some(ports) => {
                if let Some((_, name)) = ports.iter().find(|(number, _)| *number == port) {
                    return Ok(Some(name));
                }
                numbers.extend(ports.iter().map(|(number, _)| *number));
            }
            None => {
                let of_slices = self.slices.values().flat_map(|slice| &slice.ports);
                numbers.extend(of_slices.map(|(_, number)| *number));
                if numbers.is_empty() || numbers.contains(&port) {
                    return Ok(None);
                }
            }
        }
        let ports = numbers.iter().map(ToString::to_string).collect();
        Err(NoServers::NoPort { port, ports })
    }
}

impl Objects {
    /// The Services that resources refer to, whether they exist or not.
    pub fn services_wanted(&self) -> BTreeSet<ServiceName> {
        let wanted = self.destinations.iter().filter_map(|destination| {
            let service = destination.spec.carbon.as_ref()?.service.as_ref()?;
            Some(ServiceName {
                namespace: destination.namespace().unwrap_or_default(),
                name: service.name.clone(),
            })
        });
        wanted.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<K: serde::de::DeserializeOwned>(text: &str) -> K {
        serde_saphyr::from_str(text).unwrap()
    }

    fn slice(name: &str, rest: &str) -> EndpointSlice {
        read(&format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {name}}}, {rest}}}"
        ))
    }

    const V4: &str = "addressType: IPv4, ports: [{name: plain, port: 12003}, {name: admin, port: 8080}], endpoints: [
        {addresses: [10.0.0.1], targetRef: {kind: Pod, name: g-0}},
        {addresses: [10.0.0.2], targetRef: {kind: Pod, name: g-1}, conditions: {ready: false}},
        {addresses: [10.0.0.3], conditions: {ready: true}}]";
    const V6: &str = "addressType: IPv6, ports: [{name: plain, port: 12003}], endpoints: [
        {addresses: ['fd00::1'], targetRef: {kind: Pod, name: g-0}},
        {addresses: ['fd00::4'], targetRef: {kind: Pod, name: g-4}}]";

    #[test]
    fn the_ready_endpoints_of_all_slices_are_the_servers() {
        let mut service = Service::default();
        service.set_service(Some(&read(
            "{apiVersion: v1, kind: Service, metadata: {name: g}, spec: {ports: [{name: plain, port: 2003, targetPort: 12003}]}}",
        )));
        assert_eq!(service.servers(2003), Ok(BTreeMap::new()));
        service.put_slice(&slice("g-6", V6));
        service.put_slice(&slice("g-4", V4));
        let expected = [
            ("10.0.0.3", "10.0.0.3:12003"),
            ("g-0", "10.0.0.1:12003"),
            ("g-4", "[fd00::4]:12003"),
        ];
        let servers = service.servers(2003).unwrap();
        let found = servers
            .iter()
            .map(|(name, at)| (name.as_str(), at.as_str()));
        assert_eq!(found.collect::<Vec<_>>(), expected);
        service.remove_slice(&slice("g-6", V6));
        assert_eq!(service.servers(2003).unwrap().len(), 2);
        let error = service.servers(12003).unwrap_err();
        assert_eq!(error.to_string(), "has no port 12003: it has 2003");
    }

    #[test]
    fn without_the_service_the_slices_ports_count() {
        let mut service = Service::default();
        assert_eq!(service.servers(2003), Err(NoServers::NotFound));
        service.put_slice(&slice("g-4", V4));
        assert_eq!(service.servers(12003).unwrap().len(), 2);
        let error = service.servers(2003).unwrap_err();
        assert_eq!(error.to_string(), "has no port 2003: it has 8080, 12003");
    }
}
