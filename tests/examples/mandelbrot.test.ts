import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { test } from "node:test";
import { mandelbrot, mandelbrotServer, MAX_LINE, MAX_SIZE, MAX_STEPS } from "../../examples/mandelbrot.ts";
import { openSocket } from "../conformance/adapters.ts";

/** Asks a server for something and ends; the whole answer. */
async function ask(concurrency: string, request: string): Promise<string> {
  const server = mandelbrotServer("tcp://127.0.0.1:0", concurrency);
  await server.activate();
  const served = server.serveForever();
  try {
    const client = await openSocket(server.serverAddress);
    await client.write(request);
    await client.end();
    return new TextDecoder().decode(await client.readAll());
  } finally {
    await server.shutdown({ drain: 0 });
    await served;
    await server.serverClose();
  }
}

test("mandelbrot: a picture, symmetric and with the set in its middle", () => {
  const rows = mandelbrot(26, 12, 100).trimEnd().split("\n");
  assertEquals(rows.map((row) => row.length), Array(12).fill(26));
  assertEquals(rows.slice(0, 6), [...rows].reverse().slice(0, 6));
  assertEquals([rows[0]![0], rows[6]![16]], [" ", "@"]);
  assertEquals(mandelbrot(1, 1, 0), "@\n");
});

for (const concurrency of ["sequential", "async", "threading", "forking"]) {
  test(`mandelbrot, ${concurrency}: pictures, and the reason why there is none`, async () => {
    const answer = await ask(
      concurrency,
      `3 2 50\n4 1\nx\n1 2 3 4\n0 9\n${MAX_SIZE} 2\n1000 1000 ${MAX_STEPS}\n1 1\n${"9".repeat(MAX_LINE)}\n1 1\n`,
    );
    assertEquals(answer.split("\n"), [
      "mandelbrot 3 2 50",
      ...mandelbrot(3, 2, 50).trimEnd().split("\n"),
      "mandelbrot 4 1 100",
      mandelbrot(4, 1, 100).trimEnd(),
      ...Array(3).fill("ERROR usage: WIDTH HEIGHT [STEPS]"),
      `ERROR a picture may have ${MAX_SIZE} characters`,
      `ERROR a picture may take ${MAX_STEPS} steps`,
      "mandelbrot 1 1 100",
      mandelbrot(1, 1, 100).trimEnd(),
      `ERROR a line may have ${MAX_LINE} bytes`,
      "",
    ]);
  });
}

test("mandelbrot: what can't be asked for on the command line", () => {
  assertMatch(String(assertThrows(() => mandelbrotServer("udp://127.0.0.1:0", "async"), TypeError)), /tcp:.* or unix:/);
  assertMatch(
    String(assertThrows(() => mandelbrotServer("tcp://127.0.0.1:0", "magic"), TypeError)),
    /threading, forking, got magic/,
  );
});
