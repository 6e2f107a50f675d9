{{- /* What is wrong with the values beyond what a schema can say. */ -}}
{{- define "gatehouse.checks" -}}
{{- with .Values.terminationGracePeriodSeconds -}}
{{- $drain := add $.Values.drain.delaySeconds $.Values.drain.timeoutSeconds -}}
{{- if le (int64 .) $drain -}}
{{- fail (printf "\n\nterminationGracePeriodSeconds is %d: the kubelet would kill before the drain ends; it must be more than drain.delaySeconds + drain.timeoutSeconds = %d, or empty.\n" (int64 .) $drain) -}}
{{- end -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- if ne .Values.kind "Deployment" -}}{{- fail "\n\nautoscaling scales a Deployment; a DaemonSet has a pod on each node.\n" -}}{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}{{- fail "\n\nautoscaling.minReplicas is greater than autoscaling.maxReplicas.\n" -}}{{- end -}}
{{- $requests := (.Values.resources).requests | default dict -}}
{{- if and .Values.autoscaling.targetCPUUtilization (not $requests.cpu) -}}{{- fail "\n\nautoscaling.targetCPUUtilization is a share of resources.requests.cpu, which is not set.\n" -}}{{- end -}}
{{- if and .Values.autoscaling.targetMemoryUtilization (not $requests.memory) -}}{{- fail "\n\nautoscaling.targetMemoryUtilization is a share of resources.requests.memory, which is not set.\n" -}}{{- end -}}
{{- if not (or .Values.autoscaling.targetCPUUtilization .Values.autoscaling.targetMemoryUtilization .Values.autoscaling.metrics) -}}{{- fail "\n\nautoscaling looks at nothing: set a target or metrics.\n" -}}{{- end -}}
{{- end -}}
{{- if and (not .Values.rbac.create) .Values.rbac.secrets -}}
{{- fail "\n\nrbac.secrets is set, but rbac.create is false: no role is made.\n" -}}
{{- end -}}
{{- with .Values.store -}}
{{- if and .addresses (eq .mode "sentinel") (not .primary) -}}{{- fail "\n\nstore.mode is sentinel: store.primary must say what the sentinels call the primary, such as mymaster.\n" -}}{{- end -}}
{{- if and (eq .mode "standalone") (gt (len .addresses) 1) -}}{{- fail "\n\nstore.addresses names several servers: say by store.mode whether they are a cluster or sentinels.\n" -}}{{- end -}}
{{- if and (not .tls.enabled) (or .tls.serverName .tls.caSecret.name .tls.certificateSecret) -}}{{- fail "\n\nstore.tls has settings, but store.tls.enabled is false: the connection would be plain.\n" -}}{{- end -}}
{{- end -}}
{{- if .Values.gatewayAPI.check }}{{ include "gatehouse.gatewayAPI" . }}{{ end -}}
{{- end -}}

{{- /*
The Gateway API's CRDs belong to the cluster and not to a release: other controllers use them, too. So they are looked at, and that is all.
`lookup` answers nothing without a cluster (helm template, helm lint): a cluster is one that shows its namespace kube-system.
Discovery is asked beside it, as it needs no right to read CRDs.
*/ -}}
{{- define "gatehouse.gatewayAPI" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "gateways.gateway.networking.k8s.io" -}}
{{- if not (or $crd (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/Gateway")) -}}
{{- fail (printf "\n\nThe cluster lacks the CRDs of the Gateway API. They are the cluster's, and not part of this chart. Install them first:\n\n%s\n\nor set gatewayAPI.check=false and gatewayClass.create=false, and Gatehouse waits for them.\n" (include "gatehouse.gatewayAPICommand" .)) -}}
{{- end -}}
{{- $have := include "gatehouse.gatewayAPIVersion" . -}}
{{- if and $have (semverCompare (printf "<%s.0-0" (include "gatehouse.gatewayAPIOldest" .)) $have) -}}
{{- fail (printf "\n\nThe cluster's CRDs of the Gateway API are %s; this version of Gatehouse needs %s or newer. Upgrade them first (look at their release notes, and at what else uses them):\n\n%s\n\nor set gatewayAPI.check=false to try all the same.\n" $have (include "gatehouse.gatewayAPIOldest" .) (include "gatehouse.gatewayAPICommand" .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The bundle version of the CRDs that are there; empty where it is not known. */ -}}
{{- define "gatehouse.gatewayAPIVersion" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "gateways.gateway.networking.k8s.io" -}}
{{- $have := get (dig "metadata" "annotations" dict ($crd | default dict)) "gateway.networking.k8s.io/bundle-version" -}}
{{- if regexMatch "^v?[0-9]+\\.[0-9]+\\.[0-9]+" ($have | default "") }}{{ $have }}{{ end -}}
{{- end -}}

{{- define "gatehouse.gatewayAPIOldest" -}}{{ splitList " " (index .Chart.Annotations "gatehouse.dev/gateway-api") | first }}{{- end -}}
{{- define "gatehouse.gatewayAPINewest" -}}{{ splitList " " (index .Chart.Annotations "gatehouse.dev/gateway-api") | last }}{{- end -}}

{{- define "gatehouse.gatewayAPICommand" -}}
  kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/{{ include "gatehouse.gatewayAPINewest" . }}.0/standard-install.yaml
{{- end -}}
