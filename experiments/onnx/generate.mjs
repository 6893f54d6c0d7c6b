// Greedy tokens of an ONNX export in transformers.js, to compare with our own:
//
//   npm i --ignore-scripts @huggingface/transformers@4.3.2
//   node generate.mjs FOLDER "def add(a, b):" 16
//
// Prints the prompt's token ids, then the new ones.
import path from "node:path";
import { AutoModelForCausalLM, AutoTokenizer, env } from "@huggingface/transformers";

const [folder, prompt, count] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(path.resolve(folder));
const name = path.basename(folder);
const tokenizer = await AutoTokenizer.from_pretrained(name);
const model = await AutoModelForCausalLM.from_pretrained(name, { dtype: "fp32" });
const inputs = tokenizer(prompt);
const options = { max_new_tokens: Number(count), do_sample: false };
const output = await model.generate({ ...inputs, ...options });
const ids = Array.from(output.data, Number);
const read = inputs.input_ids.dims[1];
console.log(JSON.stringify(ids.slice(0, read)), JSON.stringify(ids.slice(read)));
process.exit(0);
