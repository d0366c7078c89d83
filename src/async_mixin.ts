import type { BaseServer } from "./base_server.ts";

/** A class of servers, as a mix-in takes it. */
// deno-lint-ignore no-explicit-any
export type ServerClass = abstract new (...args: any[]) => BaseServer<any>;

/**
 * Handles requests concurrently on the event loop: the next one is taken while others await something.
 *
 * The table of those that are unfinished is `activeRequests`. A handler that computes without awaiting still makes the others wait.
 *
 * @param Base The server class to derive from.
 * @returns A class derived from it.
 *
 * @example
 * ```ts
 * import { AsyncMixIn, TCPServer } from "@sockets/server";
 *
 * class ChatServer extends AsyncMixIn(TCPServer) {}
 * ```
 */
export function AsyncMixIn<B extends ServerClass>(Base: B): B {
  abstract class AsyncServer extends Base {
    protected override readonly concurrent = true;
  }
  // The name that messages show.
  Object.defineProperty(AsyncServer, "name", { value: `Async${Base.name}` });
  return AsyncServer;
}
