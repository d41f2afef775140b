"""What a step of training is made of: pairs, their rows, masks, and the loss there and back."""
