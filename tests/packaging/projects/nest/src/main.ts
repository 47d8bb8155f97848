// A Nest application whose port etp-ws shares, and a client of both.

import "reflect-metadata";
import type { AddressInfo } from "node:net";
import { Controller, Get, Injectable, Module, type OnModuleDestroy } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { type AnyEvents, Client, Server } from "etp-ws";

interface FromClients {
  greet: (name: string) => string;
}

@Injectable()
class Events implements OnModuleDestroy {
  readonly server = new Server<FromClients>();

  constructor() {
    this.server.on("greet", (_conn, name) => `hello ${name}`);
  }

  onModuleDestroy(): Promise<void> {
    return this.server.shutdown();
  }
}

@Controller()
class Connections {
  constructor(private readonly events: Events) {}

  @Get("connections")
  count(): { connections: number } {
    return { connections: this.events.server.conns.length };
  }
}

@Module({ controllers: [Connections], providers: [Events] })
class App {}

async function main(): Promise<void> {
  const app = await NestFactory.create(App, { logger: ["error", "warn"] });
  app.get(Events).server.attach(app.getHttpServer(), { path: "/events" });
  await app.listen(0, "127.0.0.1");
  const { port } = app.getHttpServer().address() as AddressInfo;
  const client = await new Client<AnyEvents, FromClients>(`ws://127.0.0.1:${port}/events`).connect();
  const reply = await client.emitWithAck("greet", "ann");
  const response = await fetch(`http://127.0.0.1:${port}/connections`, { headers: { connection: "close" } });
  console.log(reply, JSON.stringify(await response.json()));
  await client.close();
  await app.close();
}

main();
