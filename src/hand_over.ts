import type { BaseServer } from "./base_server.ts";
import type { DatagramSocket } from "./datagram_socket.ts";
import { SocketError } from "./errors.ts";
import { handlerLimits } from "./limits.ts";
import type { ProcessPool, ProcessPoolOptions } from "./process_pool.ts";
import { ignore, rejected } from "./promises.ts";
import type { SendDatagram } from "./relay/host.ts";
import type { ThreadPool } from "./thread_pool.ts";
import type { WorkerKind } from "./worker.ts";

/** What a worker that finishes a request is told. */
export interface HandedOver {
  // deno-lint-ignore no-explicit-any
  readonly server: BaseServer<any>;
  readonly module: string;
  readonly data: unknown;
}

/** Sends what a worker's handler sends, from the socket of its server; once that is closed, it is the handler's error. */
export function senderOf(server: object): SendDatagram {
  return (bytes, to) => {
    const { socket } = server as { socket?: DatagramSocket | null };
    if (socket == null) return rejected(new SocketError("ECONNABORTED", { syscall: "send", address: to }));
    return socket.send(bytes, to);
  };
}

/** Makes a worker that finishes one request. What that takes is loaded by who does it. */
export async function handOver(kind: WorkerKind, handed: HandedOver): Promise<ProcessPool | ThreadPool> {
  if (kind === "process") {
    const { ProcessPool } = await import("./process_pool.ts");
    return new ProcessPool({ ...common(handed), maxChildren: 1, spareChildren: 0, requestsPerChild: 1, childTimeout: Infinity });
  }
  const { ThreadPool } = await import("./thread_pool.ts");
  return new ThreadPool({ ...common(handed), maxThreads: 1, maxRequestsPerThread: 1, daemon: false });
}

function common(
  { server, module, data }: HandedOver,
): Omit<ProcessPoolOptions, "maxChildren" | "spareChildren" | "requestsPerChild" | "childTimeout"> {
  return {
    runtime: server.runtime,
    start: { entry: "handler", module, serverAddress: server.serverAddress, data, limits: handlerLimits(server) },
    sendDatagram: senderOf(server),
    ...patienceOf(server),
    // It is none of the server's own workers.
    onStart: ignore,
    onExit: ignore,
    // It has the one request, which tells of what goes wrong.
    onError: ignore,
  };
}

/** How long the workers of a server may take, as its fields say when that is asked. */
export function patienceOf(server: object): Pick<ProcessPoolOptions, "workerGrace" | "requestTimeout" | "onStuck"> {
  const fields = server as { workerGrace: number; requestTimeout?: number; workerStuck(): void };
  return {
    workerGrace: () => fields.workerGrace,
    requestTimeout: () => fields.requestTimeout ?? Infinity,
    onStuck: () => fields.workerStuck(),
  };
}
