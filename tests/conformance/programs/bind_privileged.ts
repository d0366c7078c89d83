/** Binds a port below 1024 and says what came of it. */
import { type SocketError, TCPServer } from "@sockets/server";
import { EchoHandler } from "../serving.ts";

const server = new TCPServer("tcp://127.0.0.1:81", EchoHandler);
try {
  await server.activate();
  console.log("bound");
  await server.serverClose();
} catch (error) {
  const { name, code, syscall } = error as SocketError;
  console.log(name, code, syscall);
}
