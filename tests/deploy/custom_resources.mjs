// Objects of custom kinds, a JSON list on stdin, against the schemas that their operators publish.
import { readFileSync } from "node:fs";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const kinds = { ScaledObject, ServiceMonitor };
for (const { apiVersion, kind, ...content } of JSON.parse(readFileSync(0))) new kinds[kind](content).validate();
