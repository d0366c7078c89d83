/** `examples/mandelbrot.ts`, whose handler computes, with `nc` as its clients. */
import { assertEquals, assertMatch } from "@std/assert";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { launch, Program, run, runtimeName, serving, testWith, withFolder } from "./programs.ts";

const PICTURE = "mandelbrot 8 3 100\n";

testWith("nc", "mandelbrot: over a Unix socket, whose file is removed", () =>
  withFolder(async (folder) => {
    const path = `${folder}/mandelbrot.sock`;
    await serving("mandelbrot.ts", ["--listen", `unix:${path}`], async () => {
      const { status, stdout } = await run("nc", ["-N", "-U", path], "8 3\nnonsense\n");
      assertEquals([status, stdout.split("\n").length], [0, 6]);
      assertMatch(stdout, /^mandelbrot 8 3 100\n[^]*\nERROR usage: WIDTH HEIGHT \[STEPS\]\n$/);
    });
    assertEquals(existsSync(path), false);
  }));

for (const mode of ["sequential", "async"]) {
  testWith("nc", `mandelbrot, ${mode}: while one request computes, the second waits`, async () => {
    const server = launch("mandelbrot.ts", ["--listen", "tcp://127.0.0.1:0", "--concurrency", mode]);
    try {
      const port = /\d+$/.exec(await server.line())![0];
      const first = new Program("nc", ["-N", "127.0.0.1", port]);
      first.send("200 100 20000\n");
      first.end();
      assertEquals(await first.line(), "mandelbrot 200 100 20000");
      // It computes now. The second one's answer comes when the first one's has left: it arrives, though the server is killed.
      const second = new Program("nc", ["-N", "127.0.0.1", port]);
      second.send("8 3\n");
      second.end();
      assertEquals(await second.line() + "\n", PICTURE);
      server.kill("SIGKILL");
      const { stdout } = await first.finish();
      assertEquals(stdout.split("\n").map((row) => row.length), [...Array(100).fill(200), 0]);
      await second.finish();
    } finally {
      server.kill("SIGKILL");
      await server.exited;
    }
  });
}

for (const mode of ["threading", "forking"]) {
  testWith(
    "nc",
    `mandelbrot, ${mode}: while one request computes, others are answered, and SIGTERM ends the server`,
    async () => {
      // A minute's work, which no test waits for.
      const first = await serving(
        "mandelbrot.ts",
        ["--listen", "tcp://127.0.0.1:0", "--concurrency", mode],
        async ({ port }) => {
          const first = new Program("nc", ["-N", "127.0.0.1", port]);
          first.send("1000 100 200000\n");
          first.end();
          assertEquals(await first.line(), "mandelbrot 1000 100 200000");
          for (let i = 0; i < 3; i++) {
            const { status, stdout } = await run("nc", ["-N", "127.0.0.1", port], "8 3\n");
            assertEquals([status, stdout.split("\n").map((row) => row.length)], [0, [PICTURE.length - 1, 8, 8, 8, 0]]);
          }
          return first;
        },
      );
      assertEquals((await first.finish()).stdout, "");
    },
  );
}

test(`${runtimeName} mandelbrot: a wrong argument is one line on stderr and status 1`, async () => {
  for (
    const [args, reason] of [
      [["--listen", "udp://127.0.0.1:0"], /^TypeError: --listen takes tcp:.* got udp:\/\/127\.0\.0\.1:0\n$/],
      [["--concurrency", "magic"], /^TypeError: --concurrency takes sequential, .* got magic\n$/],
    ] as const
  ) {
    const { status, stdout, stderr } = await launch("mandelbrot.ts", [...args]).finish();
    assertEquals([status, stdout], [1, ""]);
    assertMatch(stderr, reason);
  }
});
