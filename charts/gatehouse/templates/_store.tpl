{{- /* The store of what replicas share: its flags, and the files that they name. */ -}}
{{- define "gatehouse.storeArgs" -}}
{{- with .Values.store }}
{{- if .addresses }}
- --store={{ join "," .addresses }}
- --store-mode={{ .mode }}
{{- with .primary }}
- {{ printf "--store-primary=%s" . | quote }}
{{- end }}
{{- with .database }}
- --store-database={{ . }}
{{- end }}
- {{ printf "--store-prefix=%s" .prefix | quote }}
- --store-timeout={{ .timeout }}
{{- with .username }}
- {{ printf "--store-username=%s" . | quote }}
{{- end }}
{{- if .passwordSecret.name }}
- --store-password-file=/etc/gatehouse/store/password
{{- end }}
{{- with .sentinelUsername }}
- {{ printf "--store-sentinel-username=%s" . | quote }}
{{- end }}
{{- if .sentinelPasswordSecret.name }}
- --store-sentinel-password-file=/etc/gatehouse/store/sentinel-password
{{- end }}
{{- if .tls.enabled }}
- --store-tls
{{- with .tls.serverName }}
- {{ printf "--store-tls-server-name=%s" . | quote }}
{{- end }}
{{- if .tls.caSecret.name }}
- --store-tls-ca=/etc/gatehouse/store/ca.crt
{{- end }}
{{- if .tls.certificateSecret }}
- --store-tls-cert=/etc/gatehouse/store/tls.crt
- --store-tls-key=/etc/gatehouse/store/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Sources of a projected volume: a Secret that is changed is read anew. Empty: no file is needed. */ -}}
{{- define "gatehouse.storeFiles" -}}
{{- with .Values.store }}
{{- if .addresses }}
{{- with .passwordSecret.name }}
- secret: {name: {{ . }}, items: [{key: {{ $.Values.store.passwordSecret.key | default "password" }}, path: password}]}
{{- end }}
{{- with .sentinelPasswordSecret.name }}
- secret: {name: {{ . }}, items: [{key: {{ $.Values.store.sentinelPasswordSecret.key | default "password" }}, path: sentinel-password}]}
{{- end }}
{{- if .tls.enabled }}
{{- with .tls.caSecret.name }}
- secret: {name: {{ . }}, items: [{key: {{ $.Values.store.tls.caSecret.key | default "ca.crt" }}, path: ca.crt}]}
{{- end }}
{{- with .tls.certificateSecret }}
- secret: {name: {{ . }}, items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
