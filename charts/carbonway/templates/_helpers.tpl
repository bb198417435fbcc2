{{- define "carbonway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What identifies a component's pods; a workload's selector is immutable, so this never changes. Call with (list $ "relay"). */}}
{{- define "carbonway.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Without a version: a new chart must not restart pods whose template is otherwise the same. */}}
{{- define "carbonway.podLabels" -}}
{{ include "carbonway.selectorLabels" . }}
app.kubernetes.io/part-of: carbonway
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "carbonway.labels" -}}
{{- $root := index . 0 -}}
{{ include "carbonway.selectorLabels" . }}
app.kubernetes.io/part-of: carbonway
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "carbonway.serviceAccountName" -}}
{{- $root := index . 0 -}}
{{- $account := (index $root.Values (index . 1)).serviceAccount -}}
{{- if $account.name -}}
{{- $account.name -}}
{{- else if $account.create -}}
{{- printf "%s-%s" (include "carbonway.fullname" $root) (index . 1) -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "carbonway.image" -}}
{{- $root := index . 0 -}}
{{- $image := (index $root.Values (index . 1)).image -}}
{{- $registry := default $image.registry (default dict $root.Values.global).imageRegistry -}}
{{- $name := ternary (printf "%s/%s" $registry $image.repository) $image.repository (ne $registry "") -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What the Pod Security Standard "restricted" asks for, and a group that can write to volumes. */}}
{{- define "carbonway.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "carbonway.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What both workloads let people say about where their pods run, and from whose registry. */}}
{{- define "carbonway.placement" -}}
{{- $root := index . 0 -}}
{{- $workload := index $root.Values (index . 1) -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workload.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workload.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workload.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workload.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* What relays call the operator, and what its certificate is for. */}}
{{- define "carbonway.operatorHost" -}}
{{- printf "%s-operator.%s.svc" (include "carbonway.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* The Secret with the operator's own certificate authority. */}}
{{- define "carbonway.authority" -}}
{{- printf "%s-authority" (include "carbonway.fullname" .) -}}
{{- end -}}

{{/* Whether relays must show a token: to ask the API server about it takes a cluster-wide right. */}}
{{- define "carbonway.reviewsTokens" -}}
{{- $asked := .Values.tls.tokens -}}
{{- if eq $asked "auto" -}}
{{- eq .Values.watch.namespace "" -}}
{{- else -}}
{{- eq $asked "review" -}}
{{- end -}}
{{- end -}}
