{{/*
A RayCluster spec. Takes root, component ("training", "queue" or "serving"), head and workers (their values),
gpus per worker pod, group (name of the worker group), and, for serving, drainSeconds.
*/}}
{{- define "propulsion.rayCluster" -}}
{{- $root := .root -}}
rayVersion: {{ $root.Values.rayVersion | quote }}
{{- if $root.Values.rayToken.enabled }}
authOptions:
  mode: token
  {{- with $root.Values.rayToken.secret }}
  secretName: {{ . }}
  {{- end }}
{{- end }}
enableInTreeAutoscaling: {{ lt (int .workers.min) (int .workers.max) }}
{{- if lt (int .workers.min) (int .workers.max) }}
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ .workers.idleSeconds }}
  resources: {requests: {cpu: 200m, memory: 512Mi}, limits: {memory: 1Gi}}
  securityContext: {{- include "propulsion.containerSecurity" . | nindent 4 }}
{{- end }}
{{- with .redis }}
gcsFaultToleranceOptions:
  redisAddress: {{ .address | quote }}
  {{- with .passwordSecret }}
  redisPassword: {valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}}
  {{- end }}
{{- end }}
headGroupSpec:
  serviceType: ClusterIP
  rayStartParams:
    dashboard-host: "0.0.0.0"
    num-cpus: "0"
    num-gpus: "0"
  template:
    metadata:
      labels: {{- include "propulsion.selector" . | nindent 8 }}
    spec:
      serviceAccountName: {{ include "propulsion.serviceAccount" $root }}
      securityContext: {{- include "propulsion.podSecurity" . | nindent 8 }}
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets: {{- range . }}
        - {name: {{ . }}}
      {{- end }}
      {{- end }}
      {{- include "propulsion.initContainers" . | nindent 6 }}
      containers:
        - name: ray-head
          image: {{ include "propulsion.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          ports:
            - {name: gcs-server, containerPort: 6379}
            - {name: dashboard, containerPort: 8265}
            - {name: metrics, containerPort: 8080}
          {{- include "propulsion.environment" $root | nindent 10 }}
          securityContext: {{- include "propulsion.containerSecurity" . | nindent 12 }}
          resources: {{- include "propulsion.resources" (dict "pod" .head) | nindent 12 }}
          volumeMounts: {{- include "propulsion.mounts" . | nindent 12 }}
      {{- include "propulsion.placement" .head | nindent 6 }}
      volumes: {{- include "propulsion.volumes" . | nindent 8 }}
workerGroupSpecs:
  - groupName: {{ .group }}
    replicas: {{ .workers.min }}
    minReplicas: {{ .workers.min }}
    maxReplicas: {{ .workers.max }}
    rayStartParams:
      num-cpus: {{ include "propulsion.wholeCpus" .workers.cpus | quote }}
    template:
      metadata:
        labels: {{- include "propulsion.selector" . | nindent 10 }}
      spec:
        serviceAccountName: {{ include "propulsion.serviceAccount" $root }}
        automountServiceAccountToken: false
        {{- if eq .component "serving" }}
        terminationGracePeriodSeconds: {{ add .drainSeconds 30 }}
        {{- end }}
        securityContext: {{- include "propulsion.podSecurity" . | nindent 10 }}
        {{- with $root.Values.image.pullSecrets }}
        imagePullSecrets: {{- range . }}
          - {name: {{ . }}}
        {{- end }}
        {{- end }}
        {{- include "propulsion.initContainers" . | nindent 8 }}
        containers:
          - name: ray-worker
            image: {{ include "propulsion.image" $root }}
            imagePullPolicy: {{ $root.Values.image.pullPolicy }}
            ports:
              - {name: metrics, containerPort: 8080}
              {{- if eq .component "serving" }}
              - {name: http, containerPort: 8000}
              {{- else }}
              - {name: trainer, containerPort: {{ $root.Values.training.metricsPort }}}
              {{- end }}
            {{- include "propulsion.environment" $root | nindent 12 }}
            securityContext: {{- include "propulsion.containerSecurity" . | nindent 14 }}
            resources: {{- include "propulsion.resources" (dict "pod" .workers "gpuResource" $root.Values.gpuResource) | nindent 14 }}
            {{- if eq .component "serving" }}
            readinessProbe:
              httpGet: {path: /health, port: http}
              periodSeconds: 5
              timeoutSeconds: 3
              failureThreshold: 2
            lifecycle:
              preStop:
                exec: {command: [python, -m, cluster.deploy.drain_node, "--seconds", {{ .drainSeconds | quote }}]}
            {{- end }}
            volumeMounts: {{- include "propulsion.mounts" . | nindent 14 }}
        {{- include "propulsion.placement" .workers | nindent 8 }}
        volumes: {{- include "propulsion.volumes" . | nindent 10 }}
{{- end }}
