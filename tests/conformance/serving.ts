/** A server that runs while a test does. */
import {
  BaseRequestHandler,
  type Connection,
  type RequestHandlerClass,
  type TCPServer,
  type TCPServerOptions,
} from "@sockets/server";
import type { Adapter } from "./adapters.ts";

/** Sends back what it receives. */
export class EchoHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** A handler class for a function. */
export function handler(
  handle: (connection: Connection, handler: BaseRequestHandler) => void | Promise<void>,
): RequestHandlerClass {
  return class extends BaseRequestHandler {
    override handle(): void | Promise<void> {
      return handle(this.request, this);
    }
  };
}

/** A server class that keeps its errors instead of printing them. */
export function quiet(
  Server: typeof TCPServer,
): typeof TCPServer & (new (...args: ConstructorParameters<typeof TCPServer>) => Quiet) {
  return class extends Server {
    errors: unknown[] = [];
    override handleError(_request: unknown, _clientAddress: unknown, error: unknown): void {
      this.errors.push(error);
    }
  } as ReturnType<typeof quiet>;
}

/** What {@linkcode quiet} adds. */
export interface Quiet {
  errors: unknown[];
}

/** Serves while `use` runs, and closes the server whatever happens. */
export async function serving(
  { options: needed, freshAddress }: Adapter,
  Server: typeof TCPServer,
  Handler: RequestHandlerClass,
  use: (server: TCPServer & Quiet) => Promise<void>,
  options: TCPServerOptions = {},
): Promise<void> {
  const server = new (quiet(Server))(freshAddress(), Handler, { ...needed, ...options });
  await server.activate();
  const served = server.serveForever();
  // Who expects it to reject looks at the server's own promise; here it only must not count as unhandled.
  served.catch(() => {});
  try {
    await use(server as TCPServer & Quiet);
  } finally {
    await server.shutdown({ drain: 0 });
    await server.serverClose();
  }
}

/** Resolves when `condition` holds; for what has no event of its own. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** A promise and its resolver: for a handler and a test to wait for each other. */
export function gate<T = void>(): PromiseWithResolvers<T> {
  return Promise.withResolvers<T>();
}
