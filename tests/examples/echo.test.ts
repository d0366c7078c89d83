/** `examples/echo.ts` and datagrams that it must not answer. */
import { assert, assertEquals } from "@std/assert";
import { bind, type DatagramSocket, getRuntime, type UDPServer } from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { test } from "node:test";
import { echoServer } from "../../examples/echo.ts";

for (const runtime of [getRuntime(), memory]) {
  for (const concurrency of ["sequential", "async", "threading", "forking"]) {
    // A thread and a process have a socket of the running runtime's.
    if (runtime === memory && (concurrency === "threading" || concurrency === "forking")) continue;
    test(`${runtime.name} echo udp ${concurrency}: a datagram from its own address is not answered`, async () => {
      const address = { transport: "udp", hostname: "127.0.0.1", port: 0 } as const;
      const server = echoServer(address, concurrency, { runtime }) as unknown as UDPServer;
      await server.activate();
      const serving = server.serveForever();
      const client = await bind("udp://127.0.0.1:0", { runtime });
      client.timeout = 20_000;
      // What forges an address reaches the server as this does.
      await server.socket!.send("to myself", server.serverAddress);
      for (const said of ["one", "two"]) {
        await client.send(said, server.serverAddress);
        assertEquals(new TextDecoder().decode((await client.receive())!.data), said);
      }
      await client.close();
      await server.serverClose();
      await serving;
      assertEquals([server.stats.accepted, server.stats.datagramsSent, server.stats.errors], [3, 3, 0]);
    });
  }
}

test("memory echo udp: neither the ports of the system's services nor its own on another machine are answered", async () => {
  const server = echoServer({ transport: "udp", hostname: "192.0.2.1", port: 9000 }, "async", {
    runtime: memory,
  }) as unknown as UDPServer;
  await server.activate();
  const serving = server.serveForever();
  const socketAt = (address: string): Promise<DatagramSocket> => bind(address, { runtime: memory });
  const silent = await Promise.all(["udp://192.0.2.2:7", "udp://192.0.2.2:1023", "udp://192.0.2.2:9000"].map(socketAt));
  const answered = await Promise.all(["udp://192.0.2.2:1024", "udp://192.0.2.2:9001"].map(socketAt));
  for (const socket of [...silent, ...answered]) await socket.send("x", server.serverAddress);
  for (const socket of answered) assert(await socket.receive() !== null);
  for (const socket of [...silent, ...answered]) await socket.close();
  await server.serverClose();
  await serving;
  assertEquals([server.stats.accepted, server.stats.datagramsSent], [5, 2]);
});
