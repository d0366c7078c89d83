/** `examples/echo.ts` on the other runtimes, with clients on the one that runs this test; cells.test.ts has its own. */
import { assertEquals, assertMatch } from "@std/assert";
import { test } from "node:test";
import { openSocket } from "../conformance/adapters.ts";
import { eightMebibytes, stopped } from "./clients.ts";
import { type Running, servers, start } from "./servers.ts";

const ADDRESS = ["--listen", "tcp://127.0.0.1:0"];

for (const { name, command, own } of servers) {
  if (own) continue;
  if (command === null) {
    test(`echo on ${name} [skipped: it is not installed; npm install does that]`, { skip: true }, () => {});
    continue;
  }
  const it = (what: string, use: (server: Running) => Promise<void>) =>
    void test(`echo on ${name}: ${what}`, async () => {
      const server = await start(command, "echo.ts", ADDRESS);
      try {
        await use(server);
      } finally {
        server.kill("SIGKILL");
        await server.exited;
      }
    });

  it("8 MiB come back byte for byte, then the end", async (server) => {
    await eightMebibytes(await openSocket({ transport: "tcp", hostname: "127.0.0.1", port: server.port }));
  });

  it("a hundred clients at once", async (server) => {
    const clients = await Promise.all(
      Array.from({ length: 100 }, () => openSocket({ transport: "tcp", hostname: "127.0.0.1", port: server.port })),
    );
    await Promise.all(clients.map((client, i) => client.write(`client ${i}`)));
    for (const [i, client] of clients.entries()) assertEquals(await client.read(`client ${i}`.length), `client ${i}`);
  });

  it("ten clients that reset mid-transfer harm nobody", async (server) => {
    for (let i = 0; i < 10; i++) {
      const client = await openSocket({ transport: "tcp", hostname: "127.0.0.1", port: server.port });
      void client.write(new Uint8Array(1 << 20)).catch(() => {});
      await client.read(1);
      client.reset();
    }
    const client = await openSocket({ transport: "tcp", hostname: "127.0.0.1", port: server.port });
    await client.write("alive");
    await client.end();
    assertEquals(new TextDecoder().decode(await client.readAll()), "alive");
  });

  it(
    "a client that sends without reading is stopped, and costs little memory",
    (server) => stopped({ transport: "tcp", hostname: "127.0.0.1", port: server.port }, server.pid),
  );

  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    it(`${signal} ends it with status 0, also while a client is connected`, async (server) => {
      const client = await openSocket({ transport: "tcp", hostname: "127.0.0.1", port: server.port });
      await client.write("x");
      assertEquals(await client.read(1), "x");
      server.kill(signal);
      assertEquals(await server.exited, 0);
      assertEquals(server.stderr, "");
      await client.readAll();
      await client.end().catch(() => {});
    });
  }

  test(`echo on ${name}: arguments that make no sense are refused in one line, with status 1`, async () => {
    for (
      const [args, message] of [
        [["--listen", "nonsense"], /not an address: "nonsense"/],
        [["--listen", "tcp://127.0.0.1:70000"], /port must be an integer from 0 to 65535, got 70000/],
        [["--listen", "tcp://192.0.2.1:0"], /EADDRNOTAVAIL/],
        [["--concurrency", "magic"], /--concurrency takes sequential, async, threading, forking, got magic/],
      ] as const
    ) {
      const error = await start(command, "echo.ts", [...args]).then((server) => server.kill("SIGKILL"), (error) => error);
      assertMatch(String(error), /ended with 1: /);
      assertMatch(String(error), message);
      assertEquals(String(error).trim().split("\n").length, 1);
    }
  });
}
