// The events of a chat, as both sides of a program would share them.

export interface FromClients {
  /** Carries something, and its acknowledgment does. */
  hello: (data: { name: string }) => { hi: string };
  /** Carries something; its acknowledgment may be anything. */
  typing: boolean;
  /** Carries nothing. */
  whoami: () => string;
  /** May carry something. */
  more: (limit?: number) => string[];
  /** Its acknowledgment is empty. */
  forget: (id: string) => void;
}

export interface FromServer {
  news: { title: string };
  question: (text: string) => Promise<number>;
  bell: undefined;
}
