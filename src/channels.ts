import type { Address } from "./address.ts";
import type { BaseServer } from "./base_server.ts";
import type { Connection } from "./connection.ts";
import type { EndReason } from "./end_reason.ts";
import type { Channel, Runtime } from "./runtime.ts";
import type { WorkerKind } from "./worker.ts";

/** What each channel of `node:diagnostics_channel` is given, by the channel's name. Times are milliseconds. */
export interface ServerEvents {
  /** A server has bound its address and started its workers: `server.serverAddress` has the real port. */
  "sockets.server.listening": ServerEvent;
  /** `serverClose()` is done. */
  "sockets.server.closed": ServerEvent;
  /** A connection was accepted; `verifyRequest()` has not seen it yet. */
  "sockets.connection.accepted": ConnectionEvent;
  /** A limit kept a connection out. `"queue full"` comes in no event, as nobody looks at those connections: it is only counted. */
  "sockets.connection.refused": RefusedEvent;
  /** A connection that was accepted has ended. */
  "sockets.connection.ended": EndedEvent;
  /** Something failed, and `handleError()` is about to be called with it. */
  "sockets.request.error": ErrorEvent;
  /** A worker has loaded the handler's module. */
  "sockets.worker.started": WorkerEvent;
  /** A worker that had started is gone. */
  "sockets.worker.exited": WorkerExitEvent;
}

/** What every event says. */
export interface ServerEvent {
  /** The server that it happened to. */
  // deno-lint-ignore no-explicit-any
  readonly server: BaseServer<any>;
}

/** The event of a connection. */
export interface ConnectionEvent extends ServerEvent {
  /** The connection. */
  readonly connection: Connection;
  /** Who is there; `null` when the peer has no address. */
  readonly clientAddress: Address | null;
}

/** The event of a connection that was kept out. */
export interface RefusedEvent extends ServerEvent {
  /** Who was there; `null` when the peer has no address. */
  readonly clientAddress: Address | null;
  /** By which limit. */
  readonly reason: EndReason;
}

/** The event of a connection that has ended. */
export interface EndedEvent extends ConnectionEvent {
  /** Why. */
  readonly reason: EndReason;
  /** Bytes received. */
  readonly bytesRead: number;
  /** Bytes sent, as far as the system has taken them. */
  readonly bytesWritten: number;
  /** Milliseconds from the taking of the request to its end. */
  readonly duration: number;
}

/** The event of an error. */
export interface ErrorEvent extends ServerEvent {
  /** The connection or datagram; `null` when it belongs to none. */
  readonly request: unknown;
  /** Who sent it; `null` when the sender has no address, or there is none. */
  readonly clientAddress: Address | null;
  /** What was thrown. */
  readonly error: unknown;
}

/** The event of a worker. */
export interface WorkerEvent extends ServerEvent {
  /** Where the worker runs. */
  readonly kind: WorkerKind;
  /** Its thread id or process id. */
  readonly id: number;
}

/** The event of a worker's end. */
export interface WorkerExitEvent extends WorkerEvent {
  /** What ended it; `null` when the server did, as it does with one that nobody needs any more. */
  readonly error: Error | null;
}

/** A channel that is given one kind of message. */
export interface EventChannel<M> {
  /** Whether anybody listens. */
  readonly hasSubscribers: boolean;
  /** Tells those who listen. */
  publish(message: M): void;
}

/** The channels that a server publishes to. A message is made only where somebody listens. */
export interface Channels {
  readonly listening: EventChannel<ServerEvent>;
  readonly closed: EventChannel<ServerEvent>;
  readonly accepted: EventChannel<ConnectionEvent>;
  readonly refused: EventChannel<RefusedEvent>;
  readonly ended: EventChannel<EndedEvent>;
  readonly error: EventChannel<ErrorEvent>;
  readonly workerStarted: EventChannel<WorkerEvent>;
  readonly workerExited: EventChannel<WorkerExitEvent>;
}

/** The channels of a runtime. */
export function openChannels(runtime: Runtime): Channels {
  const open = (name: keyof ServerEvents): Channel => runtime.channel(name);
  return {
    listening: open("sockets.server.listening"),
    closed: open("sockets.server.closed"),
    accepted: open("sockets.connection.accepted"),
    refused: open("sockets.connection.refused"),
    ended: open("sockets.connection.ended"),
    error: open("sockets.request.error"),
    workerStarted: open("sockets.worker.started"),
    workerExited: open("sockets.worker.exited"),
  };
}
