"""What is fetched from elsewhere: GPT-2's weights, texts, and the folder that keeps them."""
