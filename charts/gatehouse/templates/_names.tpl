{{- /* Names and labels. Names are cut at 52 so that the longest ending of ours fits into a label (63). */ -}}
{{- define "gatehouse.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "gatehouse.fullname" -}}
{{- $name := include "gatehouse.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gatehouse.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "gatehouse.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- /* What the process makes, or looks at, in this namespace: it is told these names. */ -}}
{{- define "gatehouse.owner" -}}{{ include "gatehouse.fullname" . }}-owner{{- end -}}
{{- define "gatehouse.record" -}}{{ include "gatehouse.fullname" . }}-pod-ports{{- end -}}
{{- define "gatehouse.lease" -}}{{ include "gatehouse.fullname" . }}-leader{{- end -}}
{{- define "gatehouse.members" -}}{{ include "gatehouse.fullname" . }}-members{{- end -}}

{{- /* By these our pods are found; they can't change in the life of a release. */ -}}
{{- define "gatehouse.selector" -}}
app.kubernetes.io/name: {{ include "gatehouse.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gatehouse.labels" -}}
{{ include "gatehouse.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "gatehouse.image" -}}
{{- $i := .Values.image -}}
{{- with $i.registry }}{{ . }}/{{ end }}{{ $i.repository }}
{{- if $i.digest }}@{{ $i.digest }}{{ else }}:{{ $i.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "gatehouse.host" -}}{{ if eq .Values.exposure "host" }}true{{ end }}{{- end -}}

{{- /* Whether several pods are meant to run as a Deployment. */ -}}
{{- define "gatehouse.several" -}}
{{- $least := ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled | int -}}
{{- if and (eq .Values.kind "Deployment") (gt $least 1) }}true{{ end -}}
{{- end -}}

{{- /* Carried by each Service and alias that Gatehouse makes (infra.UIDLabel). */ -}}
{{- define "gatehouse.ourLabel" -}}gatehouse.dev/gateway-uid{{- end -}}
