// The sources held against the types, which are written by hand: what one has and the other has not is an error here, as is a difference
// between what they take and give. Where the sources say `any` or `object` names.test.mjs looks at what is there.

import type { Dialled } from "../../../js-client/src/dial.js";
import type { Event as SourceEvent } from "../../../js-client/src/events.js";
import type * as source from "../../../js-client/src/index.js";
import type { AckOptions as SourceAckOptions, Life } from "../../../js-client/src/life.js";
import type { End, Options as SourceOptions } from "../../../js-client/src/options.js";
import type { Middleware } from "../../../js-client/src/routes.js";
import type * as sourceSeparate from "../../../js-client/src/separate.js";
import type * as declared from "../../../js-client/types/index.js";
import type * as declaredNowasm from "../../../js-client/types/nowasm.js";
import type * as declaredSeparate from "../../../js-client/types/separate.js";
import type { Equal, Expect } from "./project/equal.js";

type Source = source.Client;
type Declared = declared.Client;
type Options = declared.ClientOptions;

/** Whether each can stand for the other. */
type Alike<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
type Writable<T> = { -readonly [K in keyof T]: T[K] };
type Whole<T> = Required<Writable<T>>;
type Parts<T> = { [K in keyof T]: T[K] extends (...args: infer A) => infer R ? [A, R] : T[K] };

/** The names of an error, so that it says them. */
type None<Names extends never> = Names;
type Differences<A, B> = {
  [K in keyof A]-?: K extends keyof B ? (Alike<A[K], B[K]> extends true ? never : K) : K;
}[keyof A];

/** Members whose types name a class, which is another on each side, and those that have several forms: each is looked at below. */
type Special = "connect" | "use" | "onConnect" | "onError" | "events";

/** What the options are before they are looked at: the sources have them afterwards. */
type Given = "codec" | "reconnect" | "probe" | "WebSocket";

type DeclaredEvents = Declared["events"] extends {
  (name: infer Name, options?: infer First): infer Named;
  (options?: infer Second): infer All;
}
  ? { name: Name; options: [First, Second]; answers: [Named, All] }
  : never;
type Bound = { buffer?: number };

export type Checks = [
  // What each entry exports
  Expect<Equal<keyof typeof source, keyof typeof declared>>,
  Expect<Equal<keyof typeof source, keyof typeof declaredNowasm>>,
  Expect<Equal<keyof typeof sourceSeparate, keyof typeof declaredSeparate>>,
  // The client
  None<Exclude<keyof Source, keyof Declared>>,
  None<Exclude<keyof Declared, keyof Source>>,
  None<Differences<Parts<Omit<Source, Special>>, Parts<Omit<Declared, Special>>>>,
  Expect<Equal<Life["state"] extends () => infer S ? S : never, declared.State>>,
  Expect<
    Equal<
      ConstructorParameters<typeof source.Client>["length"],
      ConstructorParameters<typeof declared.Client>["length"]
    >
  >,
  Expect<Alike<Dialled, ConstructorParameters<typeof declared.Client>[0]>>,
  Expect<Equal<Parameters<Source["connect"]>, Parameters<Declared["connect"]>>>,
  Expect<Equal<Awaited<ReturnType<Source["connect"]>>, Source>>,
  Expect<Equal<Awaited<ReturnType<Declared["connect"]>>, Declared>>,
  Expect<Alike<Parameters<Source["use"]>, Parameters<Declared["use"]>>>,
  Expect<Equal<ReturnType<Source["use"]>, Source>>,
  Expect<Equal<ReturnType<Declared["use"]>, Declared>>,
  Expect<Equal<Parameters<Source["events"]>, [name?: string | Bound, options?: Bound]>>,
  Expect<Equal<DeclaredEvents["name"], string>>,
  Expect<Equal<DeclaredEvents["options"][0], Bound>>,
  Expect<Equal<DeclaredEvents["options"][1], Bound>>,
  Expect<ReturnType<Source["events"]> extends DeclaredEvents["answers"][number] ? true : false>,
  Expect<Equal<Parameters<Source["onConnect"]>, [f: (conn: object) => unknown]>>,
  Expect<Equal<Parameters<Declared["onConnect"]>, [f: (conn: declared.ClientConn) => unknown]>>,
  Expect<Equal<Parameters<Source["onError"]>, [f: (error: source.EtpError) => unknown]>>,
  Expect<Equal<Parameters<Declared["onError"]>, [f: (error: declared.EtpError) => unknown]>>,
  Expect<Alike<ReturnType<Source["onConnect"]>, declared.Off>>,
  Expect<Alike<ReturnType<Source["onError"]>, declared.Off>>,
  // What goes in and out
  Expect<Equal<End, Writable<declared.Disconnect>>>,
  Expect<Equal<SourceEvent, Writable<declared.Event>>>,
  Expect<Equal<SourceAckOptions, declared.AckOptions>>,
  Expect<Alike<Middleware, Parameters<Declared["use"]>[0]>>,
  Expect<Equal<Parameters<Middleware>[0], Writable<declared.MiddlewareEvent>>>,
  Expect<Equal<Parameters<Middleware>[1], declared.Next>>,
  // Options
  None<Exclude<keyof SourceOptions, keyof Options>>,
  None<Exclude<keyof Options, keyof SourceOptions>>,
  None<Differences<Whole<Omit<SourceOptions, Given>>, Whole<Omit<Options, Given>>>>,
  Expect<Equal<Whole<SourceOptions>["reconnect"], Whole<Exclude<Whole<Options>["reconnect"], boolean>>>>,
  Expect<Alike<Whole<SourceOptions>["probe"], Whole<Exclude<Whole<Options>["probe"], string>>>>,
  Expect<Whole<SourceOptions>["WebSocket"] extends Whole<Options>["WebSocket"] ? true : false>,
  // Errors: the codes are those of names.test.mjs
  None<Exclude<keyof source.EtpError, keyof declared.EtpError>>,
  None<Exclude<keyof declared.EtpError, keyof source.EtpError>>,
  None<Differences<Omit<source.EtpError, "code" | "name">, Omit<declared.EtpError, "code" | "name">>>,
  Expect<
    Alike<ConstructorParameters<typeof source.EtpError>, [code: string, message: string, options?: { cause?: unknown }]>
  >,
  Expect<
    Alike<
      ConstructorParameters<typeof declared.EtpError>,
      [code: declared.ErrorCode, message: string, options?: { cause?: unknown }]
    >
  >,
];
