"""Language and vision models, behind one small client for servers that speak OpenAI's chat protocol."""
