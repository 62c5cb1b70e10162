/** The OpenAPI 3.1 document, made of the table of routes and the schemas. */

import { schemas } from './openapi-schemas.ts';
import type { Route } from './route.ts';

const json = (schema: string) => ({
  'application/json': { schema: { $ref: `#/components/schemas/${schema}` } },
});

function operation(route: Route): Record<string, unknown> {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]!);
  const inPath = names.map((name) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
  const inQuery = (route.query ?? []).map((parameter) => ({ ...parameter, in: 'query' }));
  const content =
    route.responseSchema === null
      ? { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } }
      : json(route.responseSchema);
  return {
    summary: route.summary,
    parameters: [...inPath, ...inQuery],
    ...(route.requestSchema === undefined
      ? {}
      : { requestBody: { required: true, content: json(route.requestSchema) } }),
    responses: {
      [route.status]: { description: 'Done', content },
      ...(route.responseSchema === null
        ? { 206: { description: 'The range asked for', content } }
        : {}),
      default: { description: 'An error', content: json('Error') },
    },
  };
}

export function openApiDocument(routes: readonly Route[], version: string): unknown {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const path = paths[route.path] ?? {};
    path[route.method.toLowerCase()] = operation(route);
    if (route.responseSchema === null) path.head = operation(route);
    paths[route.path] = path;
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Understudy staging service', version },
    paths,
    components: {
      schemas,
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer' },
        basic: { type: 'http', scheme: 'basic', description: 'Any user; the token as password' },
      },
    },
    security: [{ bearer: [] }, { basic: [] }],
  };
}
