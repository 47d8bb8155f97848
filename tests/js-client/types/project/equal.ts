/** Whether two types are one and the same; `any` is like nothing else. */
export type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** An error unless it is true. */
export type Expect<T extends true> = T;
