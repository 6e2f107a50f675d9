{{- /* The flags of the process. A test holds them to what `gatehouse controller --help` lists. */ -}}
{{- define "gatehouse.args" -}}
- controller
- --exposure={{ .Values.exposure }}
- --members={{ include "gatehouse.members" . }}
- --lease={{ include "gatehouse.lease" . }}
- --owner={{ include "gatehouse.owner" . }}
{{- if not (include "gatehouse.host" .) }}
{{- include "gatehouse.serviceArgs" . }}
{{- end }}
- --health-address=:{{ .Values.ports.health }}
- --admin-address={{ if .Values.ports.admin }}127.0.0.1:{{ .Values.ports.admin }}{{ end }}
- --pprof={{ .Values.pprof }}
- --drain-delay={{ .Values.drain.delaySeconds }}s
- --drain-timeout={{ .Values.drain.timeoutSeconds }}s
- --zone=$(ZONE)
{{- if not .Values.accessLog.enabled }}
- --access-log=
{{- else if .Values.accessLog.hideQuery }}
- --access-log-hide-query
{{- end }}
{{- with .Values.tracing.endpoint }}
- {{ printf "--otlp-endpoint=%s" . | quote }}
- --trace-ratio={{ $.Values.tracing.ratio }}
{{- end }}
{{- include "gatehouse.storeArgs" . }}
- --log-format={{ .Values.logFormat }}
{{- with .Values.verbosity }}
- --verbose={{ . }}
{{- end }}
{{- range $key, $value := .Values.settings }}
- {{ printf "--%s=%s" (kebabcase $key) (kindIs "slice" $value | ternary (join "," $value) (include "gatehouse.scalar" $value)) | quote }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- /* Numbers of YAML come as floats, and large ones would read 1e+06. */ -}}
{{- define "gatehouse.scalar" -}}
{{- if kindIs "float64" . }}{{ . | int64 }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- /*
A flag of the form key=value is read as it stands when that is its only "=", but for quotes at its ends, and else as a line of CSV. So what has
quotes and no "=" of its own is said twice, which makes it CSV. (Kubernetes would expand $(NAME), hence the $$.)
*/ -}}
{{- define "gatehouse.pair" -}}
{{- $pair := printf "%s=%s" (first .) (last .) -}}
{{- $field := printf "\"%s\"" (replace "\"" "\"\"" $pair) -}}
{{- if contains "=" (last .) }}{{ $field }}{{ else if contains "\"" (last .) }}{{ $field }},{{ $field }}{{ else }}{{ $pair }}{{ end -}}
{{- end -}}

{{- define "gatehouse.serviceArgs" -}}
{{- $s := .Values.service }}
- --record={{ include "gatehouse.record" . }}
- --selector=app.kubernetes.io/name={{ include "gatehouse.name" . }},app.kubernetes.io/instance={{ .Release.Name }}
- --service-type={{ $s.type }}
{{- range $flag, $map := dict "service-annotations" $s.annotations "service-labels" $s.labels "address-annotations" $s.addressAnnotations }}
{{- range $key, $value := $map }}
- {{ printf "--%s=%s" $flag (include "gatehouse.pair" (list $key $value)) | replace "$(" "$$(" | quote }}
{{- end }}
{{- end }}
{{- with $s.externalTrafficPolicy }}
- --external-traffic-policy={{ . }}
{{- end }}
{{- with $s.loadBalancerClass }}
- {{ printf "--load-balancer-class=%s" . | quote }}
{{- end }}
{{- with $s.ipFamilyPolicy }}
- --ip-family-policy={{ . }}
{{- end }}
{{- with $s.addressPool }}
- --address-pool={{ join "," . }}
{{- end }}
{{- with $.Values.clusterDomain }}
- --cluster-domain={{ . }}
{{- end }}
{{- end -}}
