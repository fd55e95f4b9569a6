{{- define "barograph.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "barograph.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "barograph.labels" -}}
{{ include "barograph.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "barograph.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What the chart states stands around what its user does: keys without a table before, tables after. */}}
{{- define "barograph.config" -}}
{{- $name := include "barograph.name" . -}}
{{- $domain := printf "%s.%s" $name .Release.Namespace -}}
{{- $hosts := concat (list $name $domain (printf "%s.svc" $domain) (printf "%s.svc.cluster.local" $domain)) .Values.hosts -}}
hosts = {{ $hosts | toJson }}
{{ .Values.config | trim }}

[tls]
certificate = "/etc/barograph/tls/tls.crt"
key = "/etc/barograph/tls/tls.key"
{{- if .Values.tls.clientAuthority }}
client_ca = "/etc/barograph/tls/ca.crt"
{{- end }}
{{- range .Values.tokens.list }}

[[tokens]]
name = {{ .name | toJson }}
token = { file = {{ printf "/etc/barograph/secret/%s" .key | toJson }} }
scopes = {{ .scopes | toJson }}
models = {{ default (list) .models | toJson }}
{{- end }}
{{ end -}}
