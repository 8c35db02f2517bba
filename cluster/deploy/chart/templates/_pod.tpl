{{/* What every container of ours has: nothing to write to but memory, scratch and the run's volume. */}}
{{- define "propulsion.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "propulsion.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "propulsion.environment" -}}
env:
  - {name: HOME, value: /home/propulsion}
  - {name: HF_HUB_OFFLINE, value: {{ ternary "1" "0" .Values.base.offline | quote }}}
  - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
  {{- with .Values.environment }}
  {{- range $name, $value := . }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
  {{- end }}
{{- with .Values.store.credentialsSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "propulsion.mounts" -}}
- {name: home, mountPath: /home/propulsion}
- {name: scratch, mountPath: /tmp}
- {name: shared-memory, mountPath: /dev/shm}
- {name: base, mountPath: {{ .root.Values.base.path }}, readOnly: true}
{{- if .root.Values.runs.claim }}
- {name: runs, mountPath: {{ .root.Values.runs.path }}}
{{- end }}
{{- if eq .component "training" }}
- {name: run-file, mountPath: /etc/propulsion/run, readOnly: true}
{{- end }}
{{- if eq .component "serving" }}
- {name: keys, mountPath: /etc/propulsion/keys, readOnly: true}
{{- end }}
{{- end }}

{{- define "propulsion.volumes" -}}
- {name: home, emptyDir: {sizeLimit: {{ .root.Values.scratch.size }}}}
- {name: scratch, emptyDir: {sizeLimit: {{ .root.Values.scratch.size }}}}
- {name: shared-memory, emptyDir: {medium: Memory, sizeLimit: {{ .root.Values.scratch.sharedMemory }}}}
{{- if .root.Values.base.claim }}
- {name: base, persistentVolumeClaim: {claimName: {{ .root.Values.base.claim }}, readOnly: true}}
{{- else }}
- {name: base, emptyDir: {sizeLimit: {{ .root.Values.base.size }}}}
{{- end }}
{{- if .root.Values.runs.claim }}
- {name: runs, persistentVolumeClaim: {claimName: {{ .root.Values.runs.claim }}}}
{{- end }}
{{- if eq .component "training" }}
- {name: run-file, configMap: {name: {{ .root.Release.Name }}-run}}
{{- end }}
{{- if eq .component "serving" }}
- {name: keys, secret: {secretName: {{ required "serving.keysSecret: a server that others can reach needs API keys" .root.Values.serving.keysSecret }}, defaultMode: 0400}}
{{- end }}
{{- end }}

{{/* A base in a bucket is copied to the pod before Ray starts. */}}
{{- define "propulsion.initContainers" -}}
{{- if .root.Values.base.url }}
initContainers:
  - name: base
    image: {{ include "propulsion.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [python, -m, cluster.deploy.fetch_base]
    args: [{{ .root.Values.base.url | quote }}, {{ .root.Values.base.path | quote }}]
    {{- include "propulsion.environment" .root | nindent 4 }}
    securityContext: {{- include "propulsion.containerSecurity" . | nindent 6 }}
    resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 4Gi}}
    volumeMounts:
      - {name: home, mountPath: /home/propulsion}
      - {name: scratch, mountPath: /tmp}
      - {name: base, mountPath: {{ .root.Values.base.path }}}
{{- end }}
{{- end }}

{{/* Whole CPUs that Ray counts in a pod: what it asks for, rounded up. */}}
{{- define "propulsion.wholeCpus" -}}
{{- if hasSuffix "m" . -}}
{{ divf (trimSuffix "m" . | float64) 1000 | ceil | int }}
{{- else -}}
{{ float64 . | ceil | int }}
{{- end -}}
{{- end }}

{{/* Takes pod (its values) and gpuResource. Memory is not overcommitted, and CPU is not capped. */}}
{{- define "propulsion.resources" -}}
requests:
  cpu: {{ .pod.cpus | quote }}
  memory: {{ .pod.memory }}
  {{- if .pod.gpus }}
  {{ .gpuResource }}: {{ .pod.gpus | quote }}
  {{- end }}
limits:
  memory: {{ .pod.memory }}
  {{- if .pod.gpus }}
  {{ .gpuResource }}: {{ .pod.gpus | quote }}
  {{- end }}
{{- end }}

{{- define "propulsion.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
