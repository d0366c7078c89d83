/**
 * What servers have counted, for Prometheus: {@linkcode prometheus} makes the text that a scrape wants.
 *
 * @module
 */
export { type Counted, prometheus, PROMETHEUS_TYPE } from "./src/observe/prometheus.ts";
