/** Runs an example's server in the test's own process. */
import { assert, assertEquals } from "@std/assert";
import type { TCPServer } from "@sockets/server";
import { connect, type Socket } from "node:net";

/** Starts a server, hands out clients, and ends them all; the server must have had no error. */
export async function withServer<S extends TCPServer, C extends { readonly socket: Socket }>(
  server: S,
  Client: new (socket: Socket) => C,
  body: (open: () => Promise<C>, server: S) => Promise<void>,
): Promise<void> {
  await server.activate();
  const serving = server.serveForever();
  const clients: C[] = [];
  const open = async (): Promise<C> => {
    const { serverAddress } = server;
    assert("port" in serverAddress);
    const socket = connect({ host: serverAddress.hostname, port: serverAddress.port, noDelay: true });
    const client = new Client(socket);
    clients.push(client);
    await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return client;
  };
  try {
    await body(open, server);
    for (const client of clients) client.socket.end();
    await server.shutdown({ drain: 5000 });
    await serving;
    assertEquals(server.stats.errors, 0);
  } finally {
    for (const client of clients) client.socket.destroy();
    await server.serverClose();
  }
}
