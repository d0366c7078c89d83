import type { BaseServer } from "./base_server.ts";
import type { DatagramSocket } from "./datagram_socket.ts";
import { handlerLimits } from "./limits.ts";
import { ProcessPool, type ProcessPoolOptions } from "./process_pool.ts";
import { ignore } from "./promises.ts";
import { ThreadPool } from "./thread_pool.ts";
import { checkWorkerData } from "./worker_data.ts";

/** What a worker that finishes a request is told. */
export interface HandedOver {
  // deno-lint-ignore no-explicit-any
  readonly server: BaseServer<any>;
  readonly module: string;
  readonly data: unknown;
}

/** Makes a worker that finishes one request. */
export type HandOver = (handed: HandedOver) => ProcessPool | ThreadPool;

/** Hands a request over to a process of its own. */
export const handOverToProcess: HandOver = (handed) => {
  checkWorkerData("process", handed.data);
  return new ProcessPool({ ...common(handed), maxChildren: 1, spareChildren: 0, requestsPerChild: 1, childTimeout: Infinity });
};

/** Hands a request over to a thread of its own. */
export const handOverToThread: HandOver = (handed) => {
  checkWorkerData("thread", handed.data);
  return new ThreadPool({ ...common(handed), maxThreads: 1, maxRequestsPerThread: 1, daemon: false });
};

function common(
  { server, module, data }: HandedOver,
): Pick<ProcessPoolOptions, "runtime" | "start" | "sendDatagram" | "onStart" | "onExit" | "onError"> {
  return {
    runtime: server.runtime,
    start: { entry: "handler", module, serverAddress: server.serverAddress, data, limits: handlerLimits(server) },
    sendDatagram: (bytes, to) => (server as unknown as { socket: DatagramSocket | null }).socket?.send(bytes, to),
    // It is none of the server's own workers.
    onStart: ignore,
    onExit: ignore,
    // It has the one request, which tells of what goes wrong.
    onError: ignore,
  };
}
