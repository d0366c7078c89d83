/** `examples/echo.ts` on the other runtimes, with clients on the one that runs this test; cells.test.ts has its own. */
import { assertEquals, assertMatch } from "@std/assert";
import { after, before, test } from "node:test";
import { type Client, openSocket } from "../conformance/adapters.ts";
import { eightMebibytes, stopped } from "./clients.ts";
import { type Running, servers, start } from "./servers.ts";

const ADDRESS = ["--listen", "tcp://127.0.0.1:0"];

for (const { name, command, own } of servers) {
  if (own) continue;
  if (command === null) {
    test(`echo on ${name} [skipped: it is not installed; npm install does that]`, { skip: true }, () => {});
    continue;
  }
  // One for all: to start it takes longer than any of these.
  let server: Running;
  before(async () => void (server = await start(command, "echo.ts", ADDRESS)));
  after(async () => {
    server.kill("SIGKILL");
    await server.exited;
  });
  const open = (): Promise<Client> => openSocket({ transport: "tcp", hostname: "127.0.0.1", port: server.port });

  test(`echo on ${name}: 8 MiB come back byte for byte, then the end`, async () => eightMebibytes(await open()));

  test(`echo on ${name}: a hundred clients at once`, async () => {
    const clients = await Promise.all(Array.from({ length: 100 }, open));
    await Promise.all(clients.map((client, i) => client.write(`client ${i}`)));
    for (const [i, client] of clients.entries()) {
      assertEquals(await client.read(`client ${i}`.length), `client ${i}`);
      await client.end();
      await client.readAll();
    }
  });

  test(`echo on ${name}: ten clients that reset mid-transfer harm nobody`, async () => {
    for (let i = 0; i < 10; i++) {
      const client = await open();
      void client.write(new Uint8Array(1 << 20)).catch(() => {});
      await client.read(1);
      client.reset();
    }
    const client = await open();
    await client.write("alive");
    await client.end();
    assertEquals(new TextDecoder().decode(await client.readAll()), "alive");
  });

  test(
    `echo on ${name}: a client that sends without reading is stopped, and costs little memory`,
    () => stopped({ transport: "tcp", hostname: "127.0.0.1", port: server.port }, server.pid),
  );

  test(`echo on ${name}: SIGTERM ends it with status 0, also while a client is connected`, async () => {
    const client = await open();
    await client.write("x");
    assertEquals(await client.read(1), "x");
    server.kill("SIGTERM");
    assertEquals(await server.exited, 0);
    await client.readAll();
    await client.end().catch(() => {});
  });
}

const { name, command } = servers.find(({ own }) => own)!;

test(`echo on ${name}: SIGINT ends it with status 0, also while a client is connected`, async () => {
  const server = await start(command!, "echo.ts", ADDRESS);
  const client = await openSocket({ transport: "tcp", hostname: "127.0.0.1", port: server.port });
  await client.write("x");
  assertEquals(await client.read(1), "x");
  server.kill("SIGINT");
  assertEquals(await server.exited, 0);
  assertEquals(server.stderr, "");
  await client.readAll();
  await client.end().catch(() => {});
});

for (
  const [args, message] of [
    [["--listen", "nonsense"], /not an address: "nonsense"/],
    [["--listen", "tcp://127.0.0.1:70000"], /port must be an integer from 0 to 65535, got 70000/],
    [["--listen", "tcp://192.0.2.1:0"], /EADDRNOTAVAIL/],
    [["--concurrency", "magic"], /--concurrency takes sequential, async, threading, forking, got magic/],
  ] as const
) {
  test(`echo on ${name}: ${args.join(" ")} is refused in one line, with status 1`, async () => {
    const error = await start(command!, "echo.ts", [...args]).then((server) => server.kill("SIGKILL"), (error) => error);
    assertMatch(String(error), /ended with 1: /);
    assertMatch(String(error), message);
    assertEquals(String(error).trim().split("\n").length, 1);
  });
}
