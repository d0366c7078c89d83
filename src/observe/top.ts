import type { Address } from "../address.ts";
import { connect } from "../connect.ts";
import { printable } from "../printable.ts";
import { StreamReader } from "../stream_reader.ts";
import type { LongRequest, MonitorSnapshot, ServerSnapshot } from "./snapshot.ts";
import { duration, short } from "./units.ts";

/** The longest answer, in bytes: that of some 90,000 servers. */
const MAX_ANSWER_BYTES = 64 << 20;

/**
 * Asks a monitor for its servers.
 *
 * @param address Where `monitor()` shows them: `tcp://host:port` or `unix:/path`.
 * @returns The servers at this moment.
 * @throws {SocketError} When nobody listens there, or the connection is lost.
 * @throws {Error} When what listens there is no monitor, or its answer is longer than 64 MiB.
 *
 * @example
 * ```ts
 * import { serve } from "@sockets/server";
 * import { fetchSnapshot, monitor } from "@sockets/server/monitor";
 *
 * const server = await serve("tcp://127.0.0.1:0", (conn) => conn.write("hello\n"));
 * const watching = await monitor(server);
 * const { servers } = await fetchSnapshot(watching.serverAddress);
 * console.log(servers[0]?.stats.active); // 0
 * await watching.serverClose();
 * await server.serverClose();
 * ```
 */
export async function fetchSnapshot(address: string | Address): Promise<MonitorSnapshot> {
  const connection = await connect(address);
  try {
    connection.timeout = 10_000;
    await connection.write("GET /stats.json HTTP/1.0\r\nhost: localhost\r\n\r\n");
    const reader = new StreamReader(connection);
    const status = await reader.readLine();
    if (status === null || !/^HTTP\/1\.\d 200 /.test(status)) {
      throw new Error(`no monitor is there, but what answers ${status === null ? "nothing" : printable(status)}`);
    }
    let size: number | null = null;
    for (let line; (line = await reader.readLine()) !== "" && line !== null;) {
      if (/^content-length:/i.test(line)) size = Number(line.slice("content-length:".length));
    }
    return JSON.parse(await readBody(reader, size));
  } finally {
    connection.abort();
  }
}

/** Reads an answer of so many bytes, or to the end of the stream, chunk by chunk. */
async function readBody(reader: StreamReader, size: number | null): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let received = 0;
  while (size === null || received < size) {
    const chunk = await reader.read();
    if (chunk === null) {
      if (size === null) break;
      throw new Error(`the monitor's answer ended after ${received} of ${size} bytes`);
    }
    received += chunk.length;
    if (received > MAX_ANSWER_BYTES) throw new Error(`the monitor's answer is longer than ${MAX_ANSWER_BYTES} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/**
 * Servers as lines for a terminal, as `top` has processes.
 *
 * @param snapshot What {@linkcode fetchSnapshot} gave.
 * @returns The text; what comes from peers in it can't steer the terminal.
 */
export function renderTop(snapshot: MonitorSnapshot): string {
  const lines = [new Date(snapshot.time).toISOString()];
  for (const server of snapshot.servers) lines.push("", ...linesOf(server));
  return lines.map(printable).join("\n") + "\n";
}

function linesOf({ address, name, draining, stats, recent, longest, replicas }: ServerSnapshot): string[] {
  const rate = (count: number, perSecond: number | undefined) =>
    short(count) + (perSecond === undefined ? "" : ` (${short(perSecond)}/s)`);
  const ended = Object.entries(stats.ended).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a);
  const lines = [
    `${address}  ${name}${draining ? "  draining" : ""}`,
    `  requests  active ${short(stats.active)}   accepted ${rate(stats.accepted, recent?.accepted)}   ` +
    `refused ${rate(stats.refused, recent?.refused)}   errors ${rate(stats.errors, recent?.errors)}   queued ${
      short(stats.queued)
    }`,
    `  bytes     received ${rate(stats.bytesRead, recent?.bytesRead)}   sent ${
      rate(stats.bytesWritten, recent?.bytesWritten)
    }   ` +
    `unsent ${short(stats.unsent)}`,
  ];
  if (recent !== null && recent.p99 !== null) {
    lines.push(`  time      50 % < ${duration(recent.p50)}   90 % < ${duration(recent.p90)}   99 % < ${duration(recent.p99)}`);
  }
  if (ended.length > 0) lines.push(`  ended     ${ended.map(([reason, count]) => `${reason} ${short(count)}`).join("   ")}`);
  if (stats.threads + stats.children > 0) lines.push(`  workers   threads ${stats.threads}   children ${stats.children}`);
  for (const { index, kind, id, state, restarts } of replicas) {
    lines.push(`  replica   ${index}: ${kind} ${id ?? "none"} ${state}, started again ${restarts} times`);
  }
  for (const request of longest) lines.push(`  longest   ${lineOf(request)}`);
  return lines;
}

function lineOf({ client, age, bytesRead, bytesWritten }: LongRequest): string {
  return `${duration(age).padStart(10)}   ${client ?? "no address"}   received ${short(bytesRead)}   sent ${short(bytesWritten)}`;
}
