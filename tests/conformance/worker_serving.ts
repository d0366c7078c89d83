/** Servers whose handlers run in threads and in child processes, for as long as a test does. */
import {
  ForkingTCPServer,
  ForkingUDPServer,
  ForkingUnixDatagramServer,
  ForkingUnixStreamServer,
  type TCPServer,
  ThreadingTCPServer,
  ThreadingUDPServer,
  ThreadingUnixDatagramServer,
  ThreadingUnixStreamServer,
  type UDPServer,
} from "@sockets/server";
import { type Client, openSocket } from "./adapters.ts";

/** The classes, whose handlers are named by URL; what differs in their options doesn't matter here. */
export type WorkerServer<S> = new (
  address: string,
  handler: URL | string,
  options?: Record<string, unknown>,
  // deno-lint-ignore no-explicit-any
) => S & Record<string, any>;
/** The two ways to run handlers elsewhere. */
export type Mode = "threading" | "forking";

export const STREAM = {
  threading: { tcp: ThreadingTCPServer, unix: ThreadingUnixStreamServer },
  forking: { tcp: ForkingTCPServer, unix: ForkingUnixStreamServer },
} as unknown as Record<Mode, Record<"tcp" | "unix", WorkerServer<TCPServer>>>;
export const DATAGRAM = {
  threading: { udp: ThreadingUDPServer, unixgram: ThreadingUnixDatagramServer },
  forking: { udp: ForkingUDPServer, unixgram: ForkingUnixDatagramServer },
} as unknown as Record<Mode, Record<"udp" | "unixgram", WorkerServer<UDPServer>>>;

/** Few workers, used again and again: starting one takes a processor a tenth of a second. */
export const FEW = {
  threading: { maxThreads: 2 },
  forking: { maxChildren: 2, requestsPerChild: Infinity },
};

/** What {@linkcode serving} adds to a server. */
export interface Errors {
  errors: unknown[];
}

/** The options that servers of a mode have: an option that is none is an error. */
export function only(mode: Mode, { spareThreads, spareChildren, ...rest }: Record<string, unknown>): Record<string, unknown> {
  return { ...rest, ...(mode === "threading" ? { spareThreads } : { spareChildren }) };
}

/** Serves while `use` runs, and keeps the errors instead of printing them. */
export async function serving<S extends TCPServer | UDPServer>(
  Server: WorkerServer<S>,
  address: string,
  handler: URL,
  options: Record<string, unknown>,
  use: (server: S & Errors) => Promise<void>,
): Promise<void> {
  const server = new Server(address, handler, options) as S & Errors;
  server.errors = [];
  server.handleError = (_request: unknown, _clientAddress: unknown, error: unknown) => void server.errors.push(error);
  // See `spin()`.
  const stop = new Int32Array(new SharedArrayBuffer(4));
  if ("maxThreads" in server && options.data === undefined) server.data = { stop: stop.buffer };
  await server.activate();
  const served = server.serveForever();
  served.catch(() => {});
  try {
    await use(server);
  } finally {
    await server.shutdown({ drain: 0 });
    await server.serverClose();
    Atomics.store(stop, 0, 1);
  }
}

/** Sends a command to a server. */
export async function ask(server: TCPServer, command: string): Promise<Client> {
  const client = await openSocket(server.serverAddress);
  await client.write(command);
  return client;
}

/** All that a client gets until the end of its connection, however that comes. */
export async function answer(client: Client): Promise<string> {
  const all = new TextDecoder().decode(await client.readAll());
  await client.end().catch(() => {});
  return all;
}
