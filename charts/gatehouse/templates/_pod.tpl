{{- /* The pod, the same for a Deployment and a DaemonSet. */ -}}
{{- define "gatehouse.pod" -}}
{{- $host := include "gatehouse.host" . -}}
metadata:
  labels: # without the chart's version: a chart that makes the same pods restarts none
    {{- include "gatehouse.selector" . | nindent 4 }}
    app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "gatehouse.serviceAccount" . }}
  automountServiceAccountToken: false # the volume "token" is the same, but lives for an hour and not for a year
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | default (add .Values.drain.delaySeconds .Values.drain.timeoutSeconds 15) }}
  {{- if $host }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  securityContext:
    {{- include "gatehouse.podSecurity" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "Deployment" }}
  {{- include "gatehouse.spread" . | nindent 2 }}
  {{- end }}
  containers:
  - name: gatehouse
    image: {{ include "gatehouse.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args:
      {{- include "gatehouse.args" . | nindent 6 }}
    env:
      {{- include "gatehouse.env" . | nindent 6 }}
    {{- with .Values.envFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
    - {name: health, containerPort: {{ .Values.ports.health }}, protocol: TCP}
    startupProbe:
      httpGet: {path: /healthz, port: health}
      periodSeconds: 2
      failureThreshold: {{ div (add .Values.probes.startupSeconds 1) 2 | max 1 }}
    livenessProbe: # says that the process lives, and never looks at anything outside of it
      httpGet: {path: /healthz, port: health}
      periodSeconds: {{ .Values.probes.livenessPeriodSeconds }}
      timeoutSeconds: 5
      failureThreshold: 6
    readinessProbe:
      httpGet: {path: /readyz, port: health}
      periodSeconds: {{ .Values.probes.readinessPeriodSeconds }}
      timeoutSeconds: 2
      failureThreshold: 3
    {{- with .Values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "gatehouse.security" . | nindent 6 }}
    volumeMounts:
    - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
    {{- if include "gatehouse.storeFiles" . | trim }}
    - {name: store, mountPath: /etc/gatehouse/store, readOnly: true}
    {{- end }}
    {{- with .Values.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
  - name: token
    projected:
      defaultMode: 0440
      sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
  {{- with include "gatehouse.storeFiles" . | trim }}
  - name: store
    projected:
      defaultMode: 0440
      sources:
      {{- . | nindent 6 }}
  {{- end }}
  {{- with .Values.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "gatehouse.env" -}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
# Kubernetes copies it from the node since 1.35; empty before that.
- {name: ZONE, valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}}}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /*
On the node's network a port below 1024 needs NET_BIND_SERVICE. Linux gives a capability to a user other than 0 only through the file
(which no_new_privs forbids) or as an ambient one (which Kubernetes can't set). So it is user 0 there, with this one and no other.
*/ -}}
{{- define "gatehouse.podSecurity" -}}
{{- $s := deepCopy .Values.podSecurityContext -}}
{{- if include "gatehouse.rootForPorts" . -}}
{{- range $key, $value := dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0 -}}
{{- $_ := set $s $key $value -}}{{- /* merge would take false and 0 for "not set" */ -}}
{{- end -}}
{{- end -}}
{{- toYaml $s -}}
{{- end -}}

{{- define "gatehouse.security" -}}
{{- $s := deepCopy .Values.securityContext -}}
{{- if include "gatehouse.rootForPorts" . -}}
{{- $capabilities := $s.capabilities | default dict -}}
{{- $s = set $s "capabilities" (set $capabilities "add" (append ($capabilities.add | default list) "NET_BIND_SERVICE" | uniq)) -}}
{{- end -}}
{{- toYaml $s -}}
{{- end -}}

{{- define "gatehouse.rootForPorts" -}}
{{- if and (include "gatehouse.host" .) .Values.host.privilegedPorts }}true{{ end -}}
{{- end -}}

{{- define "gatehouse.spread" -}}
{{- if kindIs "invalid" .Values.topologySpreadConstraints -}}
topologySpreadConstraints:
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "gatehouse.selector" $ | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- else if .Values.topologySpreadConstraints -}}
topologySpreadConstraints:
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
{{- end -}}
{{- end -}}
