/** What a server does when there is no request to be had: it goes on, at once or after a pause, and never spins or dies. */
import { assertEquals, assertRejects } from "@std/assert";
import { AsyncTCPServer, BaseRequestHandler, type Listener, type ListenOptions, SocketError } from "@sockets/server";
import { connectTo, memory } from "@sockets/server/testing";
import { test } from "node:test";

class Greets extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.write("hello");
  }
}

/** A server whose listener fails with these codes, one after the other, before it gives the first connection. */
function failing(...codes: string[]) {
  let accepts = 0;
  const listen = async (options: ListenOptions): Promise<Listener> => {
    const listener = await memory.listen(options);
    return {
      address: listener.address,
      refused: 0,
      queued: 0,
      accept(as) {
        const code = codes[accepts++];
        return code === undefined ? listener.accept(as) : Promise.reject(new SocketError(code, { syscall: "accept" }));
      },
      stop: () => Promise.resolve(),
      interrupt: () => listener.interrupt(),
      close: () => listener.close(),
      unref: () => listener.unref(),
      ref: () => listener.ref(),
    };
  };
  const told: string[] = [];
  class Server extends AsyncTCPServer {
    override handleError(request: unknown, _clientAddress: unknown, error: unknown): void {
      assertEquals(request, null);
      told.push((error as SocketError).code);
    }
  }
  const server = new Server("tcp://127.0.0.1:0", Greets, { runtime: { ...memory, listen } });
  return { server, told, accepts: () => accepts };
}

async function greeted(server: AsyncTCPServer): Promise<void> {
  const client = await connectTo(server);
  assertEquals(new TextDecoder().decode(await client.read() ?? undefined), "hello");
  await client.close();
}

test("accept errors: what concerns one connection is passed over at once and told to nobody", async () => {
  const passing = ["ECONNABORTED", "ECONNRESET", "EINTR", "EPROTO", "EPERM", "ENOTCONN", "ETIMEDOUT", "ENETDOWN", "EHOSTUNREACH"];
  const { server, told, accepts } = failing(...passing);
  await server.activate();
  const served = server.serveForever();
  await greeted(server);
  assertEquals([told, accepts()], [[], passing.length + 2]);
  await server.serverClose();
  await served;
});

test("accept errors: a shortage is told once, however long it lasts, and then the server goes on", async () => {
  for (const code of ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EIO", "ESOMETHING"]) {
    const { server, told, accepts } = failing(code, code, code);
    await server.activate();
    const served = server.serveForever();
    await greeted(server);
    assertEquals([told, accepts(), server.stats.errors], [[code], 5, 1]);
    await server.serverClose();
    await served;
  }
});

test("accept errors: handleRequest() waits for a request too", async () => {
  const { server, told } = failing("ECONNABORTED", "EMFILE");
  await server.activate();
  const handled = server.handleRequest();
  await greeted(server);
  await handled;
  assertEquals([told, server.stats.accepted], [["EMFILE"], 1]);
  await server.serverClose();
});

test("accept errors: a listener that is no good any more ends the server", async () => {
  const { server, told } = failing("EBADF");
  await server.activate();
  const error = await assertRejects(() => server.serveForever(), SocketError);
  assertEquals([error.code, told], ["EBADF", []]);
  await server.serverClose();
});

test("accept errors: a server that waits for better times can be stopped", async () => {
  const { server } = failing(...Array(1000).fill("EMFILE"));
  await server.activate();
  const served = server.serveForever();
  await server.shutdown();
  await served;
  await server.serverClose();
});
