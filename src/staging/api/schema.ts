/** The words in which the OpenAPI document describes JSON. Pure. */

export type Schema = Readonly<Record<string, unknown>>;

export const text = (description: string): Schema => ({ type: 'string', description });
/** A whole number from 0. */
export const count = (description: string): Schema => ({
  ...{ type: 'integer', minimum: 0, description },
});
export const flag = (description: string): Schema => ({ type: 'boolean', description });
export const choice = (words: readonly string[]): Schema => ({ type: 'string', enum: [...words] });
export const list = (items: Schema, description = ''): Schema => ({
  ...{ type: 'array', items, description },
});
export const orNull = (schema: Schema): Schema => ({ oneOf: [schema, { type: 'null' }] });
/** A schema of the document, by its name. */
export const reference = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });
/** Values by names that are not fixed here. */
export const map = (description: string): Schema => ({
  ...{ type: 'object', additionalProperties: true, description },
});
export const object = (
  properties: Readonly<Record<string, Schema>>,
  required: readonly string[] = Object.keys(properties),
): Schema => ({ type: 'object', required, properties });
