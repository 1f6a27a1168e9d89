{{- define "kennel.name" -}}
{{- contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kennel.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kennel.labels" -}}
{{ include "kennel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "kennel.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "kennel.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "kennel.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* Every container: no root, no writes but to its mounts, no capabilities. */}}
{{- define "kennel.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Refuses values that a schema cannot: one sentence each, naming the value and what to do. */}}
{{- define "kennel.check" -}}
{{- $model := .Values.model }}
{{- $given := dict "image" $model.image.reference "pvc" $model.pvc.claimName "s3" $model.s3.uri }}
{{- if not (hasKey $given ($model.source | default "")) }}
{{- fail (printf "model.source is %q; set it to image, pvc or s3." ($model.source | default "")) }}
{{- end }}
{{- $names := dict "image" "model.image.reference" "pvc" "model.pvc.claimName" "s3" "model.s3.uri" }}
{{- range $source, $value := $given }}
{{- if and $value (ne $source $model.source) }}
{{- fail (printf "model.source is %s, but %s is %q; a model comes from one source, so empty the other." $model.source (get $names $source) $value) }}
{{- end }}
{{- end }}
{{- if and (eq $model.source "pvc") (not $model.pvc.claimName) }}
{{- fail "model.source is pvc, but model.pvc.claimName is empty; set it to the claim that holds the unpacked model." }}
{{- end }}
{{- if and (eq $model.source "s3") (not (regexMatch "^s3://[^/]+/.*[^/]$" $model.s3.uri)) }}
{{- fail (printf "model.source is s3, but model.s3.uri is %q; set it to s3://bucket/key of a model.tar.gz." $model.s3.uri) }}
{{- end }}
{{- if eq .Values.image.tag "latest" }}
{{- fail "image.tag is latest, which names no version; set a tag or image.digest." }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas is %d, more than autoscaling.maxReplicas, %d; raise the one or lower the other." (int .minReplicas) (int .maxReplicas)) }}
{{- end }}
{{- end }}
{{- range $name := list "SAGEMAKER_BIND_TO_PORT" "KENNEL_MODEL_DIR" }}
{{- if hasKey $.Values.env $name }}
{{- fail (printf "env.%s is the chart's own: its probes, service and mounts count on the default; leave it out." $name) }}
{{- end }}
{{- end }}
{{- end }}
