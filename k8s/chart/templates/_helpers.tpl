{{/* One release in a namespace is called tokengate, as in k8s/base; others carry the release's name. */}}
{{- define "tokengate.name" -}}
{{- if eq .Release.Name "tokengate" }}tokengate{{ else }}{{ printf "%s-tokengate" .Release.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tokengate.selector" -}}
app.kubernetes.io/name: tokengate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tokengate.labels" -}}
{{ include "tokengate.selector" . }}
app.kubernetes.io/part-of: tokengate
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tokengate.config" -}}
{{- .Values.config | default (.Files.Get "files/gateway.toml") }}
{{- end }}

{{- define "tokengate.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}
