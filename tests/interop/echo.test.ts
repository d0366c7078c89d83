/** `examples/echo.ts` on every transport, with `socat` and `nc` as clients. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { existsSync } from "node:fs";
import { test } from "node:test";
import {
  type Example,
  launch,
  missingUnixDatagram,
  Program,
  run,
  runtimeName,
  serving,
  testWith,
  withFolder,
} from "./programs.ts";

const TCP = ["--listen", "tcp://127.0.0.1:0"];
const UDP = ["--listen", "udp://127.0.0.1:0"];
const TEXT = Array.from({ length: 20_000 }, (_, i) => `line ${i}\n`).join("");

/** Serves on a Unix socket; its file must be gone afterwards. */
function servingUnix(
  transport: "unix" | "unixgram",
  use: (server: Example, path: string, folder: string) => Promise<void>,
): Promise<void> {
  return withFolder(async (folder) => {
    const path = `${folder}/echo.sock`;
    await serving("echo.ts", ["--listen", `${transport}:${path}`], (server) => use(server, path, folder));
    assert(!existsSync(path), "the socket's file is left behind");
  });
}

/** Sends a text and its end; it must come back, and the end behind it. */
async function echoes(tool: string, args: string[]): Promise<void> {
  const { status, stdout, stderr } = await run(tool, args, TEXT);
  assertEquals([status, stderr], [0, ""]);
  assert(stdout === TEXT, `${stdout.length} bytes came back, not the ${TEXT.length} that were sent`);
}

/** Sends line by line, each a datagram, and the next one once the last has come back. */
async function echoesLines(tool: string, args: string[]): Promise<void> {
  const client = new Program(tool, args);
  try {
    for (const line of ["first", "second", "a third, longer one", "ü".repeat(500)]) {
      client.send(line + "\n");
      assertEquals(await client.line(), line);
    }
    client.end();
    assertEquals(await client.exited, 0);
    assertEquals(client.stderr, "");
  } finally {
    client.kill("SIGKILL");
  }
}

// How long socat waits for more after its input has ended; here the answer is the end of the stream, so it is never that long.
const PATIENT = ["-t", "30"];

testWith(
  "socat",
  "echo: socat over TCP",
  () => serving("echo.ts", TCP, (s) => echoes("socat", [...PATIENT, "-", `TCP:127.0.0.1:${s.port}`])),
);
testWith(
  "socat",
  "echo: two replicas, socat over TCP, eight times",
  () =>
    serving("echo.ts", [...TCP, "--replicas", "2"], async (server) => {
      await Promise.all(Array.from({ length: 8 }, () => echoes("socat", [...PATIENT, "-", `TCP:127.0.0.1:${server.port}`])));
    }),
);
testWith("nc", "echo: nc over TCP", () => serving("echo.ts", TCP, (s) => echoes("nc", ["-N", "127.0.0.1", s.port])));
testWith(
  "socat",
  "echo: socat over a Unix stream socket",
  () => servingUnix("unix", (_server, path) => echoes("socat", [...PATIENT, "-", `UNIX-CONNECT:${path}`])),
);
testWith(
  "nc",
  "echo: nc over a Unix stream socket",
  () => servingUnix("unix", (_server, path) => echoes("nc", ["-N", "-U", path])),
);

testWith(
  "socat",
  "echo: socat over UDP",
  () => serving("echo.ts", UDP, (server) => echoesLines("socat", ["-t", "0", "-", `UDP:127.0.0.1:${server.port}`])),
);
testWith(
  "nc",
  "echo: nc over UDP",
  () => serving("echo.ts", UDP, (s) => echoesLines("nc", ["-u", "-q", "0", "127.0.0.1", s.port])),
);

if (missingUnixDatagram === false) {
  testWith(
    "socat",
    "echo: socat over Unix datagrams (UNIX-SENDTO)",
    () =>
      servingUnix(
        "unixgram",
        (_server, path, folder) => echoesLines("socat", ["-t", "0", "-", `UNIX-SENDTO:${path},bind=${folder}/client.sock`]),
      ),
  );
  testWith(
    "socat",
    "echo: socat over Unix datagrams (UNIX-CLIENT, connected)",
    () =>
      servingUnix(
        "unixgram",
        (_server, path, folder) =>
          echoesLines("socat", ["-t", "0", "-", `UNIX-CLIENT:${path},type=2,bind=${folder}/client.sock`]),
      ),
  );
  testWith(
    "nc",
    "echo: nc over Unix datagrams",
    () =>
      servingUnix(
        "unixgram",
        (_server, path, folder) => echoesLines("nc", ["-u", "-U", "-q", "0", "-s", `${folder}/client.sock`, path]),
      ),
  );
} else {
  void test(`${runtimeName} echo: without Unix datagram sockets the program says what would make it work`, () =>
    withFolder(async (folder) => {
      const { status, stdout, stderr } = await launch("echo.ts", ["--listen", `unixgram:${folder}/echo.sock`]).finish();
      assertEquals([status, stdout], [1, ""]);
      assertMatch(stderr, /^UnsupportedError: [^\n]*\n$/);
      assert(stderr.includes(missingUnixDatagram as string), stderr);
      assert(!existsSync(`${folder}/echo.sock`));
    }));
}

testWith(
  "socat",
  "echo: a socket's file that a killed server left behind is replaced, one in use is not",
  () =>
    servingUnix("unix", async (server, path) => {
      const second = await launch("echo.ts", ["--listen", `unix:${path}`]).finish();
      assertEquals([second.status, second.stdout], [1, ""]);
      assertMatch(second.stderr, /^SocketError: \S+ EADDRINUSE: [^\n]*\n$/);
      assertEquals((await run("socat", [...PATIENT, "-", `UNIX-CONNECT:${path}`], "alive\n")).stdout, "alive\n");
      const killed = launch("echo.ts", ["--listen", `unix:${path}.2`]);
      await killed.line();
      killed.kill("SIGKILL");
      await killed.exited;
      assert(existsSync(`${path}.2`));
      await serving(
        "echo.ts",
        ["--listen", `unix:${path}.2`],
        (_server) => echoes("socat", [...PATIENT, "-", `UNIX-CONNECT:${path}.2`]),
      );
      assert(!existsSync(`${path}.2`));
      assertEquals(server.stderr, "");
    }),
);
