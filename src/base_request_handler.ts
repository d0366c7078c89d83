import type { Address } from "./address.ts";
import type { BaseServer } from "./base_server.ts";
import type { Connection } from "./connection.ts";
import { SystemExit } from "./errors.ts";

/**
 * The class that every request handler derives from: one instance for each request, `setup()` → `handle()` → `finish()`.
 *
 * Override `handle()`. Each of the three may be async. `finish()` always runs, also when `setup()` or `handle()` threw
 * (`socketserver` leaves it out when `setup()` raises).
 *
 * @typeParam R What a request is: a {@linkcode Connection} on the stream servers.
 *
 * @example
 * ```ts
 * import { BaseRequestHandler } from "@sockets/server";
 *
 * class Daytime extends BaseRequestHandler {
 *   override async handle(): Promise<void> {
 *     await this.request.write(new Date().toISOString() + "\r\n");
 *   }
 * }
 * ```
 */
export class BaseRequestHandler<R = Connection> {
  /** The request. */
  readonly request: R;
  /** Who sent it; `null` when the sender has no address. */
  readonly clientAddress: Address | null;
  /** The server that took it. */
  readonly server: BaseServer<R>;

  /**
   * Called by the server's `finishRequest`.
   *
   * @param request The request.
   * @param clientAddress Who sent it.
   * @param server The server that took it.
   */
  constructor(request: R, clientAddress: Address | null, server: BaseServer<R>) {
    this.request = request;
    this.clientAddress = clientAddress;
    this.server = server;
  }

  /** Prepares for `handle()`. Does nothing by default. */
  setup(): void | Promise<void> {}

  /** Does the work of the service. Does nothing by default. */
  handle(): void | Promise<void> {}

  /** Cleans up after `handle()`. Does nothing by default. */
  finish(): void | Promise<void> {}
}

/**
 * Takes a handler through its three steps; without a promise when none of them makes one. In Python the handler's constructor does it; a
 * JavaScript constructor can't wait.
 */
export function runHandler<R>(handler: BaseRequestHandler<R>): void | Promise<void> {
  try {
    const ready = handler.setup();
    if (ready !== undefined) return finishAfter(handler, ready.then(() => handler.handle()));
    const handled = handler.handle();
    if (handled !== undefined) return finishAfter(handler, handled);
  } catch (error) {
    return finishAfter(handler, Promise.reject(error));
  }
  return handler.finish();
}

async function finishAfter<R>(handler: BaseRequestHandler<R>, handled: Promise<void>): Promise<void> {
  try {
    await handled;
  } catch (error) {
    try {
      await handler.finish();
    } catch (second) {
      if (!(error instanceof SystemExit)) {
        throw new AggregateError([error, second], `a handler failed, and so did its finish(): ${String(error)}`);
      }
    }
    throw error;
  }
  await handler.finish();
}
