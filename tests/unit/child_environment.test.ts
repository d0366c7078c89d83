import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { childEnvironment, withoutInspector } from "../../runtimes/shared/child_environment.ts";

test("a child's options are those of the program without its debugger's", () => {
  const options = [
    "--smol",
    "--inspect",
    "--inspect=127.0.0.1:9229",
    "--inspect-brk",
    "--inspect-wait=0",
    "--inspect-port",
    "9230",
  ];
  options.push("--debug-port=1", "--inspect-publish-uid", "stderr,http", "--import", "./inspect.mjs", "--inspector-free");
  assertEquals(withoutInspector(options), ["--smol", "--import", "./inspect.mjs", "--inspector-free"]);
});

test("a child's environment is the program's without its debugger's variables", () => {
  const before = { ...process.env };
  process.env.NODE_OPTIONS = "--inspect=0 --max-old-space-size=100 --inspect-brk";
  process.env.BUN_INSPECT = "ws://127.0.0.1:0";
  process.env.SOCKETS_TEST = "kept";
  try {
    const env = childEnvironment()!;
    assertEquals(env.NODE_OPTIONS, "--max-old-space-size=100");
    assertEquals([env.BUN_INSPECT, env.SOCKETS_TEST, env.SOCKETS_SERVER_CHILD], [undefined, "kept", String(process.pid)]);
    // What was set with two blanks stays as it was, where there is nothing to leave out.
    process.env.NODE_OPTIONS = "--title=a  --title=b";
    assertEquals(childEnvironment()!.NODE_OPTIONS, "--title=a  --title=b");
  } finally {
    for (const name of ["NODE_OPTIONS", "BUN_INSPECT", "SOCKETS_TEST"]) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
});
