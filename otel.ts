/**
 * Servers reported to OpenTelemetry: {@linkcode instrument} takes a tracer and a meter of `@opentelemetry/api`, which this package does
 * not depend on.
 *
 * @module
 */
export {
  type Attributes,
  instrument,
  type Instruments,
  type Meter,
  type MetricOptions,
  type Observed,
  type Span,
  type Tracer,
} from "./src/observe/otel.ts";
