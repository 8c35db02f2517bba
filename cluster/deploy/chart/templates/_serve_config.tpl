{{/*
Ray Serve's own configuration, which KubeRay takes as text. A replica takes so much of a pod that two do
not fit; what it leaves is for the gateway, which has to be on a worker to outlive the head.
*/}}
{{- define "propulsion.serveConfig" -}}
{{- $serving := .Values.serving -}}
{{- $args := dict
      "base" .Values.base.path
      "store" .Values.store.url
      "served_name" .Values.base.name
      "host" "0.0.0.0"
      "keys_file" (printf "/etc/propulsion/keys/%s" $serving.keysFile)
      "min_replicas" $serving.workers.min
      "max_replicas" $serving.workers.max
      "tensor_parallel" $serving.tensorParallel
      "replica_gpus" $serving.workers.gpus
      "replica_cpus" (subf (include "propulsion.wholeCpus" $serving.workers.cpus | float64) 0.5)
      "gateway_cpus" 0.5
      "drain_seconds" $serving.drainSeconds -}}
proxy_location: EveryNode
http_options: {host: 0.0.0.0, port: 8000}
logging_config: {encoding: JSON}
applications:
  - name: propulsion
    import_path: cluster.serving.app:build
    route_prefix: /
    args: {{- toYaml (mergeOverwrite $args (deepCopy $serving.options)) | nindent 6 }}
{{- end }}
