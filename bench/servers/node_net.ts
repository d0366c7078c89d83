/** Echo on `node:net` in a runtime that has an API of its own. On Node it is the runtime's own API, in raw.ts. */
import type * as net from "node:net";

if (!("Deno" in globalThis || "Bun" in globalThis)) {
  console.log("unsupported it is `raw` there");
} else {
  const server = process.getBuiltinModule("node:net").createServer({ noDelay: true }, (socket) => {
    socket.on("data", (chunk) => {
      if (socket.write(chunk)) return;
      socket.pause();
      socket.once("drain", () => socket.resume());
    });
    socket.on("error", () => {});
  });
  server.listen(0, "127.0.0.1", () => console.log(`listening tcp://127.0.0.1:${(server.address() as net.AddressInfo).port}`));
}
