/** Names of everything in a data directory. Pure; FORMAT.md has the picture. */
import { type Names, plainNames } from './names.ts';

const pad = (value: number, digits: number): string => String(value).padStart(digits, '0');

export const paths = (root: string, repo = `${root}/repo`, names: Names = plainNames) => {
  const mapFolder = ({ server, volume, generation }: MapPlace): string =>
    `${names.serverFolder(server)}/${names.volumeFolder(server, volume)}/${generation}`;
  const journal = `${root}/journal`;
  return {
    root,
    /** What is known to be damaged: the service's own. */
    damage: `${root}/damage`,
    journal,
    repo,
    watermark: `${journal}/watermark`,
    owner: `${journal}/repository`,
    open: `${journal}/open`,
    temporary: `${journal}/temporary`,
    format: `${repo}/format.json`,
    packs: `${repo}/packs`,
    deltas: `${repo}/deltas`,
    bases: `${repo}/bases`,
    index: `${repo}/index`,
    points: `${repo}/points`,
    condemned: `${repo}/condemned`,
    holds: `${repo}/holds`,
    policies: `${repo}/policies`,
    keys: `${repo}/keys`,
    lease: `${repo}/lease`,
    terms: `${repo}/terms`,
    term: (term: number) => `${repo}/terms/${pad(term, 10)}.term`,
    copies: `${repo}/copies`,
    segment: (sequence: number) => `${journal}/${pad(sequence, 16)}.segment`,
    run: (sequence: number) => `${journal}/open/${pad(sequence, 16)}.run`,
    packFolder: (id: string) => `${repo}/packs/${id.slice(0, 2)}`,
    pack: (id: string) => `${repo}/packs/${id.slice(0, 2)}/${id}.pack`,
    pointFolder: (server: string) => `${repo}/points/${names.serverFolder(server)}`,
    point: (server: string, id: string) =>
      `${repo}/points/${names.serverFolder(server)}/${id}.point`,
    deltaFolder: (place: MapPlace) => `${repo}/deltas/${mapFolder(place)}`,
    delta: (place: MapPlace, from: number, to: number) =>
      `${repo}/deltas/${mapFolder(place)}/${deltaName(from, to)}`,
    baseFolder: (place: MapPlace) => `${repo}/bases/${mapFolder(place)}`,
    base: (place: MapPlace, epoch: number) =>
      `${repo}/bases/${mapFolder(place)}/${pad(epoch, 10)}.base`,
    indexObject: (name: string) => `${repo}/index/${name}.index`,
    condemnedMark: (id: string) => `${repo}/condemned/${id}.condemned`,
    hold: (point: string) => `${repo}/holds/${point}.hold`,
    policyFolder: (server: string) => `${repo}/policies/${names.serverFolder(server)}`,
    copyNote: (repository: string, number: number) =>
      `${repo}/copies/${repository}-${pad(number, 10)}.copy`,
  };
};
export type Paths = ReturnType<typeof paths>;

/** Whose maps: one generation of one volume of one server. */
export interface MapPlace {
  readonly server: string;
  readonly volume: string;
  readonly generation: string;
}

export const policyName = (number: number): string => `${pad(number, 16)}.policy`;

export function parsePolicyName(name: string): number | null {
  const match = /^(\d{16})\.policy$/.exec(name);
  return match === null ? null : Number(match[1]);
}

const deltaName = (from: number, to: number): string => `${pad(from, 10)}-${pad(to, 10)}.delta`;

/** Epochs that a delta's name says it covers, (from, to]; null for another name. */
export function parseDeltaName(name: string): { from: number; to: number } | null {
  const match = /^(\d{10})-(\d{10})\.delta$/.exec(name);
  return match === null ? null : { from: Number(match[1]), to: Number(match[2]) };
}

export function parseBaseName(name: string): number | null {
  const match = /^(\d{10})\.base$/.exec(name);
  return match === null ? null : Number(match[1]);
}

/** Owner of what the store made itself: leaf tables, and nothing that a server has sent. */
export const STORE_OWNER = new Uint8Array(8);
