"""Applications of a trained model: embedding, retrieval, question answering over documents, function calling."""
