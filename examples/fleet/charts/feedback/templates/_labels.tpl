{{- define "feedback.selector" -}}
app: {{ .Release.Name }}
{{- end }}
