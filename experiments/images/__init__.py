"""CIFAR-10 and MNIST: tables 2, 3 and 6 and figure 3 of the paper."""
