import type { Address } from "./address.ts";
import type { BaseServer } from "./base_server.ts";
import type { Connection } from "./connection.ts";
import type { Datagram } from "./datagram.ts";
import type { DatagramSocket } from "./datagram_socket.ts";
import { ProcessPool, type ProcessPoolOptions } from "./process_pool.ts";
import { ThreadPool } from "./thread_pool.ts";

/** A request that its handler leaves to a worker. */
export interface HandedOver {
  // deno-lint-ignore no-explicit-any
  readonly server: BaseServer<any>;
  readonly request: Connection | Datagram;
  readonly clientAddress: Address | null;
  readonly module: string;
  readonly data: unknown;
  /** Bytes that have been read of the connection and belong to the worker. */
  readonly unread: Uint8Array;
}

/** Resolves when the worker has finished the request. */
export type HandOver = (handed: HandedOver) => Promise<void>;

/** Hands a request over to a process of its own. */
export const handOverToProcess: HandOver = (handed) => {
  const one = { maxChildren: 1, spareChildren: 0, requestsPerChild: 1, childTimeout: Infinity };
  return finish(new ProcessPool({ ...common(handed), ...one }), handed);
};

/** Hands a request over to a thread of its own. */
export const handOverToThread: HandOver = (handed) => {
  const one = { maxThreads: 1, maxRequestsPerThread: 1, daemon: false };
  return finish(new ThreadPool({ ...common(handed), ...one }), handed);
};

async function finish(pool: ProcessPool | ThreadPool, { request, clientAddress, unread }: HandedOver): Promise<void> {
  try {
    await pool.run(request, clientAddress, unread);
  } finally {
    await pool.close(true);
  }
}

function common({ server, module, data }: HandedOver): Pick<ProcessPoolOptions, "runtime" | "start" | "sendDatagram"> {
  return {
    runtime: server.runtime,
    start: { entry: "handler", module, serverAddress: server.serverAddress, data },
    sendDatagram: (bytes, to) => (server as unknown as { socket: DatagramSocket | null }).socket?.send(bytes, to),
  };
}
