{{/* Names are fixed: see the head of values.yaml. */}}
{{- define "wasmpool.operator" -}}wasmpool-operator{{- end }}

{{/* Who the operator is to the API server. */}}
{{- define "wasmpool.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "wasmpool.operator" . }}
{{- end }}

{{- define "wasmpool.selectorLabels" -}}
app.kubernetes.io/name: wasmpool-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels that the chart sets itself. */}}
{{- define "wasmpool.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/part-of: wasmpool
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "wasmpool.selectorLabels" . }}
{{- end }}

{{/* Labels of every object; its own win, for selectors go by them. */}}
{{- define "wasmpool.labels" -}}
{{- merge (include "wasmpool.ownLabels" . | fromYaml) (.Values.commonLabels | default dict) | toYaml }}
{{- end }}

{{/* repository:tag or repository@digest; called with (list <image values> <chart>). */}}
{{- define "wasmpool.image" -}}
{{- $image := index . 0 -}}
{{- $chart := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $chart.AppVersion }}
{{- end -}}
{{- end }}

{{/*
agent.cacheHostPaths as CEL has lists. None may be below another: whoever has a directory in the one could lay a link there
that the kubelet would follow for the other.
*/}}
{{- define "wasmpool.cacheHostPaths" -}}
{{- range $outer := .Values.agent.cacheHostPaths }}
{{- range $inner := $.Values.agent.cacheHostPaths }}
{{- if hasPrefix (printf "%s/" $outer) $inner }}
{{- fail (printf "agent.cacheHostPaths: %s is below %s; directories that lie beside each other are allowed" $inner $outer) }}
{{- end }}
{{- end }}
{{- end }}
{{- .Values.agent.cacheHostPaths | toJson }}
{{- end }}
