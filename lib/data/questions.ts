import type { Problem } from './problems.js';

/** Prompts for where nobody brings any: questions that a model answers at some length, without answers to compare with. */
export const questions: readonly Problem[] = [
  'What is the sum of the first 50 odd numbers? Explain how you find it.',
  'A train leaves at 9:40 and arrives at 13:05. How long is the journey, and what is its average speed over 246 km?',
  'How many ways are there to choose 3 books out of 8, and why?',
  'Solve 3x + 7 = 2(x - 4) + 20 step by step.',
  'A rectangle has a perimeter of 46 and a diagonal of 17. What is its area?',
  'What is the probability that two fair dice add up to at least 9?',
  'Factor x^3 - 6x^2 + 11x - 6 and check the result.',
  'What are the last two digits of 7 to the power of 100?',
  'Write a function that tells whether a number is prime, and say how long it takes.',
  'Explain the difference between a stack and a queue with an example of each.',
  'Why does the harmonic series diverge?',
  'How does binary search work, and when can it not be used?',
  'Describe how a vaccine teaches the immune system.',
  'Why is the sky blue at noon and red in the evening?',
  'Summarise how a bill becomes a law in a parliament with two chambers.',
  'Give three reasons why a bridge needs expansion joints.',
].map((prompt, i) => ({ id: `question-${i}`, prompt, answers: [] }));
